"""The model: copies, sizes, files, sessions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import compress
from compress.errors import DataError, ModelError
from compress.model import Model


@pytest.fixture
def model(build, normal):
    text = "g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }"
    return compress.load(build(text, w=normal(8, 4)))


def test_a_copy_can_be_edited_alone(model):
    copy = model.copy()
    copy.graph.initializers["w"].const_value = ir.tensor(np.zeros((8, 4), np.float32), name="w")
    assert not copy.run({"x": np.ones((1, 8), np.float32)})[0].any()
    assert model.run({"x": np.ones((1, 8), np.float32)})[0].any()
    assert model.original is model


def test_passes_that_need_data_say_so(model):
    with pytest.raises(DataError, match="needs calibration data; load the model with"):
        model.batches()


def test_a_graph_that_the_runtime_refuses_is_an_error_of_the_model(build, normal):
    wrong = build("g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(6, 4))
    with pytest.raises(ModelError, match=r"not valid ONNX: .*Incompatible dimensions"):
        compress.load(wrong)
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot load the model: .*Incompatible dimensions"):
        Model(ir.from_proto(wrong)).run({"x": np.ones((1, 8), np.float32)})
