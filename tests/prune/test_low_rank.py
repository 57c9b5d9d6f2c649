"""factorize: two layers that compute what one of low rank did."""

import numpy as np
import onnx_ir as ir
import pytest

from compress.changes import Reason
from compress.data import Data
from compress.errors import DataError
from compress.model import Model
from compress.passes.factorize import Factorize

BODY = """<ir_version: 10, opset_import: ["" : 21]>
network (
  float[N,8,9,9] x, float[16,8,3,3] w1, float[16] b1, float[16,1,3,3] w2, float[16,24] w3, float[20,24] w4,
  float[20] b4, float[30,20] w5
) => (float[N,30] y) {
  [conv] a = Conv<pads=[1,1,0,1], strides=[2,1]>(x, w1, b1)
  [depthwise] b = Conv<group=16>(a, w2)
  [active] r = Relu(b)
  [pool] p = GlobalAveragePool(r)
  [flat] f = Flatten(p)
  [matrix] m = MatMul(f, w3)
  [gemm] g = Gemm<transB=1>(m, w4, b4)
  [turn] t = Transpose<perm=[1,0]>(w5)
  [turned] y = MatMul(g, t)
}"""


@pytest.fixture
def model():
    """Every dense weight has rank 3."""
    graph = ir.from_onnx_text(BODY)
    rng = np.random.default_rng(0)
    for value in list(graph.graph.inputs)[1:]:
        shape = tuple(value.shape.numpy())
        array = rng.normal(size=shape)
        if len(shape) > 1 and value.name != "w2":
            array = (rng.normal(size=(shape[0], 3)) @ rng.normal(size=(3, np.prod(shape[1:])))).reshape(shape)
        graph.graph.inputs.remove(value)
        value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
        graph.graph.register_initializer(value)
    batches = [rng.normal(1.0, 1.0, size=(64, 8, 9, 9)).astype(np.float32) for _ in range(2)]
    return Model(graph, calibration=Data(batches))


@pytest.mark.parametrize("importance", ["activation", "weight"])
def test_layers_of_low_rank_are_factored_without_loss(model, importance):
    thin = Factorize(error=0.01, importance=importance)(model)
    feeds = model.calibration.first(model.graph.inputs)
    np.testing.assert_allclose(thin.run(feeds)[0], model.run(feeds)[0], rtol=1e-3, atol=0.05)
    done = {change.layer: change for change in thin.changes if change.action}
    assert list(done) == ["conv", "matrix", "gemm", "turned"]
    assert "depthwise" in [change.layer for change in thin.changes if change.skipped]
    assert all(int(change.action.split()[1]) <= 3 for change in done.values())
    saved = sum(change.bytes_before - change.bytes_after for change in done.values())
    assert thin.weight_bytes == model.weight_bytes - saved
    assert "w5" not in thin.graph.initializers


def test_a_share_of_the_bytes(model):
    thin = Factorize(ratio=0.8)(model)
    done = [change for change in thin.changes if change.action]
    assert sum(c.bytes_after for c in done) <= 0.2 * sum(c.bytes_before for c in done)
    feeds = model.calibration.first(model.graph.inputs)
    assert thin.run(feeds)[0].shape == model.run(feeds)[0].shape


def test_layers_of_full_rank_stay_when_the_error_is_small(model):
    value = model.graph.initializers["w3"]
    value.const_value = ir.tensor(np.eye(16, 24, dtype=np.float32), name="w3")
    (change,) = (c for c in Factorize(error=0.01, importance="weight")(model).changes if c.layer == "matrix")
    assert change.skipped == Reason.SMALL.because("two factors would take more bytes, or lose too much")


def test_layers_are_chosen_by_name(model):
    thin = Factorize(error=0.01, include=("gemm",), importance="weight")(model)
    assert [change.layer for change in thin.changes if change.action] == ["gemm"]


def test_it_needs_calibration_data_unless_told_otherwise(model):
    model.calibration = None
    with pytest.raises(DataError, match="calibration data"):
        Factorize()(model)
