"""Another form of a model is refused where it is another model, and by the value that differs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from compress.data import Data
from compress.diagnose.faithful import check
from compress.errors import ModelError
from compress.graph import defaults, files

X = np.arange(6, dtype=np.float32).reshape(3, 2)


def _model(body: str, output: str = "float[N,2] y", more: str = "") -> ir.Model:
    head = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>'
    return files.understood(parser.parse_model(f"{head} g (float[N,2] x{more}) => ({output}) {{ {body} }}"))


def test_the_first_value_that_differs_is_named() -> None:
    before, after = _model("y = Neg(x)"), _model("y = Abs(x)")
    check(before, _model("a = Neg(x) b = Neg(a) y = Neg(b)"), Data([X]), "it")
    with pytest.raises(ModelError, match=r"it would change output 'y': 1.0 instead of -1.0 at \[0, 1\]"):
        check(before, after, Data([X]), "it")
    with pytest.raises(ModelError, match="it would change output 'y'"):
        check(before, after, None, "it")


def test_what_a_mask_fills_in_is_no_measure_of_an_error() -> None:
    mask = "m = Constant<value = bool[2] {1, 0}>() f = Constant<value = float {-1e9}>() y = Where(m, h, f)"
    before, after = _model(f"h = Neg(x) {mask}"), _model(f"h = Abs(x) {mask}")
    with pytest.raises(ModelError, match="it would change output 'y'"):
        check(before, after, Data([X + 1]), "it")


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (
            's = Softmax(z) y = ai.onnx.ml.ZipMap<classlabels_strings=["a", "b"]>(s)',
            "seq(map(string, float)) y",
        ),
        ("y = SplitToSequence<axis=1>(z)", "seq(float[N,1]) y"),
    ],
)
def test_parts_of_sequences_are_compared_one_by_one(body: str, output: str) -> None:
    before = _model(f"z = Neg(x) {body}", output)
    rounded = _model(f"h = Sqrt(x) m = Mul(h, h) z = Neg(m) {body}", output)
    check(before, rounded, Data([X]), "it")
    with pytest.raises(ModelError, match="it would change output 'y'"):
        check(before, _model(f"h = Exp(x) z = Neg(h) {body}", output), Data([X]), "it")


def test_a_form_that_does_not_run_is_refused() -> None:
    with pytest.raises(ModelError, match="it gives a graph that does not run: "):
        check(_model("y = Neg(x)"), _model("t = Transpose(x) y = Add(t, x)"), Data([X]), "it")


def test_defaults_are_fed_to_inputs_that_hold_theirs() -> None:
    before = _model("y = Mul(x, two)", more=", float two = {2}")
    after = before.clone()
    defaults.hold(after)
    check(before, after, Data([X]), "it")
