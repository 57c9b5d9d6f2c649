"""sparsify: zeros where they were asked for, in the layout of every operator."""

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from compress.data import Data
from compress.errors import DataError
from compress.model import Model
from compress.passes.sparsify import Sparsify

BODY = """<ir_version: 10, opset_import: ["" : 21]>
network (
  float[N,8,6,6] x, float[16,8,3,3] w1, float[16,1,3,3] w2, float[16,24] w3, float[10,24] w4, float[10,5] w5
) => (float[N,5] y) {
  [conv] a = Conv<pads=[1,1,1,1]>(x, w1)
  [depthwise] b = Conv<group=16>(a, w2)
  [active] r = Relu(b)
  [pool] p = GlobalAveragePool(r)
  [flat] f = Flatten(p)
  [matrix] m = MatMul(f, w3)
  [gemm] g = Gemm<transB=1>(m, w4)
  [ten] y = MatMul(g, w5)
}"""


@pytest.fixture
def model():
    graph = ir.from_onnx_text(BODY)
    rng = np.random.default_rng(0)
    for value in list(graph.graph.inputs)[1:]:
        array = rng.normal(size=tuple(value.shape.numpy())).astype(np.float32)
        graph.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=value.name)
        graph.graph.register_initializer(value)
    batches = [rng.normal(size=(32, 8, 6, 6)).astype(np.float32) for _ in range(4)]
    return Model(graph, calibration=Data(batches))


def weight(model, name):
    return model.graph.initializers[name].const_value.numpy()


@pytest.mark.parametrize("solver", ["magnitude", "wanda", "sparsegpt"])
def test_half_of_every_dense_weight_is_zero(model, solver):
    sparse = Sparsify(solver=solver)(model)
    for name in ("w1", "w3", "w4", "w5"):
        assert (weight(sparse, name) == 0).mean() == 0.5
    np.testing.assert_array_equal(weight(sparse, "w2"), weight(model, "w2"))
    done = {change.layer: change for change in sparse.changes if change.action}
    assert list(done) == ["conv", "matrix", "gemm", "ten"]
    assert done["conv"].action == "50% of the weights are zero"
    assert done["conv"].bytes_before == done["conv"].bytes_after == 16 * 8 * 9 * 4
    assert 0.1 < done["conv"].error < 1
    assert "it has groups" in next(change.skipped for change in sparse.changes if change.layer == "depthwise")


@pytest.mark.parametrize("solver", ["magnitude", "wanda", "sparsegpt"])
def test_two_of_four_input_channels(model, solver):
    sparse = Sparsify(solver=solver, pattern="2:4")(model)
    fours = [
        weight(sparse, "w1").reshape(16, 2, 4, 9).transpose(0, 1, 3, 2),
        weight(sparse, "w3").T.reshape(24, 4, 4),
        weight(sparse, "w4").T.reshape(10, 6, 4),
    ]
    assert all(((four != 0).sum(-1) == 2).all() for four in fours)
    (reason,) = (change.skipped for change in sparse.changes if change.layer == "ten")
    assert reason.partition(": ")[2] == "its 10 input channels do not divide into fours"


def test_weights_that_are_sparse_already_are_told(model):
    sparse = Sparsify(solver="magnitude")(model)
    again = Sparsify(solver="magnitude")(sparse)
    own = again.changes[len(sparse.changes) :]
    assert not any(change.action for change in own)
    assert "nothing to gain: as many of its weights are zero already" in {change.skipped for change in own}


def test_calibration_helps_outputs(model):
    feeds = model.calibration.first(model.graph.inputs)
    want = model.run(feeds)[0]
    errors = {
        solver: np.linalg.norm(Sparsify(solver=solver)(model).run(feeds)[0] - want)
        for solver in ("magnitude", "sparsegpt")
    }
    assert errors["sparsegpt"] < 0.8 * errors["magnitude"]


def test_layers_are_chosen_by_name(model):
    sparse = Sparsify(solver="magnitude", include=("matrix",))(model)
    assert [change.layer for change in sparse.changes if change.action] == ["matrix"]


def test_calibration_data_are_needed_unless_by_magnitude(model):
    model.calibration = None
    Sparsify(solver="magnitude")(model)
    with pytest.raises(DataError, match="calibration data"):
        Sparsify(solver="wanda")(model)


def test_a_pattern_that_contradicts_the_ratio():
    with pytest.raises(ValidationError, match="sets one half to zero"):
        Sparsify(pattern="2:4", ratio=0.75)
