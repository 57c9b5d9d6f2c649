"""Activations that are spelled as arithmetic become one operator with the same outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compress.graph.activations import fuse_activations
from compress.graph.fold import fold
from compress.graph.session import session

SPELLINGS = {
    "paddle": ("s = Add(x, three) c = Clip(s, zero, six) p = Mul(x, c) y = Div(p, six)", "HardSwish"),
    "torch": ("s = Add(x, three) c = Clip(s, zero, six) d = Div(c, six) y = Mul(d, x)", "HardSwish"),
    "scaled first": ("m = Mul(x, sixth) s = Add(m, half) c = Clip(s, zero, one) y = Mul(c, x)", "HardSwish"),
    "gate": ("s = Add(three, x) c = Clip(s, zero, six) y = Mul(c, sixth)", "HardSigmoid"),
    "gate and product": ("y = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) z = Mul(x, y)", "HardSwish"),
    "steep": ("m = Mul(x, half) s = Add(m, half) c = Clip(s, zero, one) y = Mul(c, x)", "HardSigmoid"),
}
NUMBERS = {"zero": 0, "half": 0.5, "one": 1, "three": 3, "six": 6, "sixth": 1 / 6}


def model_of(build: Any, text: str, opset: int = 21) -> ir.Model:
    """Return the model of some statements on x whose last one makes the output."""
    last = text.split(" = ")[-2].split()[-1]
    numbers = {name: np.array(value, np.float32) for name, value in NUMBERS.items() if name in text}
    graph = f"g (float[N,8] x) => (float[N,8] {last}) {{ {text} }}"
    return ir.from_proto(build(graph, opset=opset, **numbers))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_spells_an_activation_becomes_it(spelling: str, build: Any) -> None:
    text, wanted = SPELLINGS[spelling]
    model, x = model_of(build, text), {"x": np.linspace(-8, 8, 64, dtype=np.float32).reshape(8, 8)}
    before = session(model).run(None, x)[0]
    fold(model)
    kinds = [node.op_type for node in model.graph]
    assert wanted in kinds and "Clip" not in kinds and len(kinds) <= 2
    np.testing.assert_allclose(session(model).run(None, x)[0], before, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "s = Add(x, three) c = Clip(s, zero, one) y = Mul(x, c)",
        "s = Add(x, three) c = Clip(s, half, six) p = Mul(x, c) y = Div(p, six)",
        "s = Add(x, three) c = Clip(s, zero, six) p = Mul(s, c) y = Div(p, six)",
        "s = Sub(three, x) c = Clip(s, zero, six) p = Mul(x, c) y = Div(p, six)",
    ],
)
def test_what_is_another_function_keeps_its_outputs(text: str, build: Any) -> None:
    model, x = model_of(build, text), {"x": np.linspace(-8, 8, 64, dtype=np.float32).reshape(8, 8)}
    before = session(model).run(None, x)[0]
    fold(model)
    assert "HardSwish" not in [node.op_type for node in model.graph]
    np.testing.assert_allclose(session(model).run(None, x)[0], before, atol=1e-5)


def test_no_operator_is_used_before_it_exists(build: Any) -> None:
    model = model_of(build, SPELLINGS["torch"][0], opset=13)
    fuse_activations(model)
    assert {node.op_type for node in model.graph} >= {"HardSigmoid", "Mul"}
    assert "HardSwish" not in [node.op_type for node in model.graph]
