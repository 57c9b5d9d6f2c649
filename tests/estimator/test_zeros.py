"""Zeros given for some values stand for those that must have the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from compress.errors import ModelError, did_you_mean
from compress.estimator import estimate, load
from compress.estimator.zeros import counted, spread
from compress.model import Model

MODEL = """<ir_version: 10, opset_import: ["": 21]>
g (float[batch, 3, 8, 8] x) => (float[batch, 16] y) <float[4, 3, 3, 3] w = {0}, float[36, 16] v = {0}> {
    c = Conv(x, w)
    r = Relu(c)
    n = LRN <size = 3> (r)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (n)
    f = Flatten(p)
    y = Gemm(f, v)
}"""


def graph() -> ir.Model:
    model = ir.from_onnx_text(MODEL)
    for value in model.graph.initializers.values():
        value.const_value = ir.tensor(np.ones(value.shape.numpy(), np.float32), name=value.name)
    return model


@pytest.mark.parametrize("given", ["c", "r", "n", "p", "f"])
def test_one_name_of_a_chain_is_enough(given: str) -> None:
    found = spread(graph(), {given: 0.6})
    assert {name: found.get(name) for name in "rnpf"} == dict.fromkeys("rnpf", 0.6)
    assert ("c" in found) == (given == "c")  # what a Relu reads has zeros of its own


def test_what_is_given_stands() -> None:
    found = spread(graph(), {"r": 0.6, "p": 0.3})
    assert (found["n"], found["f"]) == (0.6, 0.3)


def test_zeros_of_a_weight_can_be_given() -> None:
    skipping = load("phone-npu").model_copy(update={"zero_operands": frozenset(["weights"])})
    dense, sparse = (estimate(graph(), skipping, zeros=zeros).total for zeros in ({}, {"w": 0.5}))
    saved = dense.energy["compute"] - sparse.energy["compute"]
    # Products of float32 run on the fp16 units.
    assert saved == pytest.approx(0.5 * 6 * 6 * 4 * 27 * skipping.arithmetic["fp16"].pj_per_mac.value * 1e-12)


def test_zeros_are_counted_on_data() -> None:
    model = graph()
    found = counted(Model(model), [{"x": np.full((1, 3, 8, 8), value, np.float32)} for value in (1, -1)])
    assert found == {"x": 0.0, "f": 0.5}
    assert spread(model, found)["r"] == 0.5


def test_unknown_names_are_answered() -> None:
    with pytest.raises(ModelError, match=r"no such value; did you mean"):
        spread(graph(), {"rr": 0.5})


def test_a_large_graph_is_not_listed() -> None:
    message = did_you_mean("zzz", [f"{number:03}" for number in range(200)])
    assert (
        message.startswith("; known: 000, 001") and message.endswith(" and 170 more") and len(message) < 200
    )
