"""Repair: what the remaining channels can tell of a removed one is not lost."""

import numpy as np
import onnx_ir as ir
import pytest

from compress.data import Data
from compress.errors import DataError
from compress.model import Model
from compress.prune.coupling import Coupling
from compress.prune.repair import repair

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\nnetwork '
CONVOLUTION = """(float[N,3,9,9] x, float[8,3,3,3] w1, float[8] b1, float[6,4,3,2] w2, {more})
  => (float[N,6,H,W] y) {{
  [first] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  [active] r = Relu(a)
  [second] y = Conv<group=2, pads=[0,1,2,1], strides=[2,1], dilations=[1,2]>(r, w2{bias})
}}"""
MATRIX = """(float[N,5,6] x, float[6,8] w1, float[8] b1, float[8,4] w2, float[1,1,4] b2)
  => (float[N,5,4] y) {{
  [first] a = MatMul(x, w1)  [offset] b = Add(a, b1)  [active] r = Relu(b)
  [second] c = MatMul(r, w2)  {end}
}}"""
GEMM = """(float[N,6] x, float[6,8] w1, float[8] b1, float[4,8] w2, float[4] b2) => (float[N,4] y) {
  [first] a = Gemm(x, w1, b1)  [active] r = Relu(a)  [second] y = Gemm<transB=1>(r, w2, b2)
}"""
NETWORKS = {
    "convolution": CONVOLUTION.format(more="float[6] b2", bias=", b2"),
    "convolution without bias": CONVOLUTION.format(more="float[1] unused", bias=""),
    "matrix and addition": MATRIX.format(end="[last] y = Add(c, b2)"),
    "matrix": MATRIX.format(end="[last] y = Identity(c)"),
    "gemm": GEMM,
}


def build(text):
    """Random weights; of the first layer's 8 channels, 3 and 7 are twice 2 and 6."""
    graph = ir.from_onnx_text(HEAD + text)
    rng = np.random.default_rng(0)
    for value in list(graph.graph.inputs)[1:]:
        array = rng.normal(size=tuple(value.shape.numpy())).astype(np.float32)
        if value.name in ("w1", "b1"):
            channels = np.moveaxis(array, array.shape.index(8), 0)
            channels[[3, 7]] = 2 * channels[[2, 6]]
        graph.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=value.name)
        graph.graph.register_initializer(value)
    shape = tuple(graph.graph.inputs[0].shape)[1:]
    batches = [rng.normal(1.0, 1.0, size=(100, *shape)).astype(np.float32) for _ in range(4)]
    return Model(graph, calibration=Data(batches[:3])), {"x": batches[3]}


def pruned(model, size, mask, *, mend, damping=1e-6):
    smaller = model.copy()
    coupling = Coupling(smaller.ir)
    group = next(group for group in coupling.groups if group.size == size and not group.obstacle)
    removal = coupling.removal({group: mask})
    removal.apply(smaller.graph)
    if mend:
        repair(smaller, model.ir, removal, damping)
    return smaller


def error(model, reference, feeds):
    (got,), (want,) = model.run(feeds), reference.run(feeds)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_channel_that_others_imply_is_made_up_for_exactly(name):
    model, unseen = build(NETWORKS[name])
    size = 4 if "convolution" in name else 8  # per group of the grouped convolution
    mask = np.arange(size) % 4 != 3
    assert error(pruned(model, size, mask, mend=False), model, unseen) > 0.1
    assert error(pruned(model, size, mask, mend=True), model, unseen) < 1e-3


@pytest.mark.parametrize("name", ["convolution without bias", "matrix and addition", "gemm"])
def test_the_mean_of_a_lost_channel_goes_into_the_bias(name):
    model, unseen = build(NETWORKS[name])
    size = 4 if "convolution" in name else 8
    mask = np.arange(size) % 4 < 2
    plain, mended = (error(pruned(model, size, mask, mend=mend), model, unseen) for mend in (False, True))
    assert mended < 0.85 * plain


def test_layers_further_on_are_fitted_to_the_inputs_they_get():
    text = """(float[N,6] x, float[6,8] w1, float[8,12] w2, float[12] b2, float[12,4] w3, float[4] b3)
      => (float[N,4] y) {
      [first] a = MatMul(x, w1)  [active] r = Relu(a)
      [second] b = Gemm(r, w2, b2)  [bounded] t = Relu(b)  [third] y = Gemm(t, w3, b3)
    }"""
    model, unseen = build(text)
    mended = pruned(model, 8, np.arange(8) < 5, mend=True)
    assert not np.array_equal(*(m.graph.initializers["w3"].const_value.numpy() for m in (model, mended)))
    half = mended.copy()
    for name in ("w3", "b3"):
        half.graph.initializers[name].const_value = model.graph.initializers[name].const_value
    assert error(mended, model, unseen) < error(half, model, unseen)


def test_it_needs_calibration_data():
    model, _ = build(GEMM)
    model.calibration = None
    with pytest.raises(DataError, match="calibration data"):
        pruned(model, 8, np.arange(8) < 5, mend=True)
