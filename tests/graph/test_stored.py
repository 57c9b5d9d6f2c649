"""Weights behind a Cast are read plainly while a pass works, and stored as before."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import compress
from compress.graph import stored
from compress.graph.layers import layers, nbytes
from compress.graph.linear import store
from compress.passes import Factorize, Fold, Int8Weights, Sparsify

TEXT = """g (float[N,32] x) => (float[N,32] y) {
    [widen] w = Cast<to=1>(half)  [fc] h = MatMul(x, w)  y = Add(h, b)
}"""


@pytest.fixture
def proto(build, normal):
    return build(TEXT, half=normal(32, 32).astype(np.float16), b=normal(32))


def test_nothing_done_leaves_the_graph_as_it_was(proto):
    model = ir.from_proto(proto)
    storage = stored.read_plainly(model)
    (layer,) = layers(model.graph)
    assert (layer.names, layer.dtype, layer.nbytes) == (("fc", "half"), ir.DataType.FLOAT, 2048)
    stored.store_again(model, storage)
    after = ir.to_proto(model)
    assert [(node.op_type, node.name, *node.input, *node.output) for node in after.graph.node] == [
        (node.op_type, node.name, *node.input, *node.output) for node in proto.graph.node
    ]
    assert [each.SerializeToString() for each in after.graph.initializer] == [
        each.SerializeToString() for each in proto.graph.initializer
    ]


def test_new_content_is_stored_in_the_same_type(proto):
    model = ir.from_proto(proto)
    storage = stored.read_plainly(model)
    (layer,) = layers(model.graph)
    store(layer.weight, layer.array * 2)
    stored.store_again(model, storage)
    (weight,) = (value for value in model.graph.initializers.values() if value.name == "half")
    assert (weight.dtype, nbytes(weight)) == (ir.DataType.FLOAT16, 2048)
    original = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    np.testing.assert_array_equal(weight.const_value.numpy(), original * 2)


@pytest.mark.parametrize("kind", [Fold, Sparsify, Factorize, Int8Weights])
def test_files_do_not_grow_and_weights_are_found(proto, normal, kind):
    batches = [{"x": normal(64, 32)} for _ in range(2)]
    model = compress.load(proto, calibration=batches)
    result = kind()(model)
    assert result.weight_bytes <= model.weight_bytes + 8
    assert kind is Fold or any(change.action for change in result.changes)
    assert result.run(batches[0])[0].dtype == np.float32


def test_a_weight_that_others_read_as_it_is_stays(build, normal):
    text = (
        "g (float[N,8] x) => (float[N,8] y, float16[8,8] z) { w = Cast<to=1>(h) y = MatMul(x, w) z = Neg(h) }"
    )
    model = ir.from_proto(build(text, h=normal(8, 8).astype(np.float16)))
    assert stored.read_plainly(model) == {}
    assert [node.op_type for node in model.graph] == ["Cast", "MatMul", "Neg"]
