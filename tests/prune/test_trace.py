"""Tracing: which axes of a graph are one, which are pinned and why, and where a size comes from."""

import numpy as np
import onnx_ir as ir
import pytest

import compress.prune.rules  # noqa: F401  (enters the rules)
from compress.prune.axes import Axis
from compress.prune.trace import Slot, traced


@pytest.fixture
def trace(build):
    """A function from a graph's body to its trace and its values by name."""

    def made(body, **weights):
        model = ir.from_proto(build(f"net (float[N,4] x) => (float[N,M] y) {body}", **weights))
        found = traced(model, {})
        values = {value.name: value for node in model.graph for value in node.outputs}
        return found, values | dict(model.graph.initializers), list(model.graph)

    return made


def ones(*shape):
    return np.ones(shape, np.float32)


def test_what_a_layer_makes_the_next_one_reads(trace):
    found, values, (first, _, second) = trace(
        "{ a = MatMul(x, w1)  r = Relu(a)  y = MatMul(r, w2) }", w1=ones(4, 6), w2=ones(6, 3)
    )
    inner = found.dims(values["w1"])[1].root
    assert inner is found.dims(values["r"])[1].root is found.dims(values["w2"])[0].root
    assert not inner.pinned
    assert found.dims(values["y"])[1].root.pinned == "it is a dimension of a graph output"
    assert found.dims(values["w1"])[0].root.pinned == "it is a dimension of a graph input"
    assert [node for axis, node in found.produced if axis.root is inner] == [first]
    assert [node for axis, node in found.consumed if axis.root is inner] == [second]


def test_an_operator_without_a_rule_pins_what_it_touches(trace):
    found, values, _ = trace("{ a = MatMul(x, w)  y, i = TopK(a, k) }", w=ones(4, 6), k=np.array([2]))
    assert "passes through TopK" in found.dims(values["a"])[1].root.pinned


def test_the_symbols_of_inputs_are_sizes_of_their_own(trace):
    found, values, _ = trace("{ y = Relu(x) }")
    batch, width = found.dims(values["y"])
    assert (batch.size, width.size) == (3, 4)


def test_elements_of_a_shape_are_constants_or_axes(trace):
    found, _, nodes = trace(
        "{ s = Shape(x)  b = Gather(s, zero)  c = Concat<axis=0>(b, four)  y = Reshape(x, c) }",
        zero=np.array([0]),
        four=np.array([4]),
    )
    concat, reshape = nodes[2:]
    axis, slot = found.elements(reshape, 1)
    assert isinstance(axis, Axis) and axis.root.pinned == "it is a dimension of a graph input"
    assert slot == Slot(concat, 1, 0, 4)
    assert found.constants.keys() == {(concat, 1)}
