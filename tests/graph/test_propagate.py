"""Shapes through bodies of If, Loop and Scan, and through sequences."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from compress.graph import shapes

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
BRANCHES = """
    y = If (c) <
        then_branch = yes () => (float[m, 2] t) { t = Concat <axis = 0> (x, x) },
        else_branch = no () => (float[k, 2] e) { e = Neg(x) }
    >
"""


def infer(text: str) -> dict[str, tuple[int, ...]]:
    return shapes.infer(ir.from_onnx_text(HEAD + text))


@pytest.mark.parametrize(("constant", "rows"), [("1", 6), ("0", 3)])
def test_the_branch_that_a_constant_takes_counts(constant: str, rows: int) -> None:
    found = infer(f"g (float[3, 2] x) => (float[a, 2] y) <bool c = {{{constant}}}> {{ {BRANCHES} }}")
    assert (found["t"], found["e"], found["y"]) == ((6, 2), (3, 2), (rows, 2))


def test_the_larger_branch_counts_where_the_condition_is_not_known() -> None:
    assert infer(f"g (float[3, 2] x, bool c) => (float[a, 2] y) {{ {BRANCHES} }}")["y"] == (6, 2)


def test_the_branch_that_fits_counts_where_the_condition_is_not_known() -> None:
    found = infer(
        """g (float[3, 2] x, bool c) => (float[a, b] y) <int64[2] target = {2, 3}> {
            y = If (c) <
                then_branch = yes () => (float[m, n] t) { t = MatMul(x, x) },
                else_branch = no () => (float[k, l] e) { e = Reshape(x, target) }
            >
        }"""
    )
    assert found["y"] == (2, 3)


def test_a_loop_stacks_what_it_collects() -> None:
    found = infer(
        """g (float[3, 2] x) => (float[3, 2] last, float[r, 3, 2] all) <int64 rounds = {4}, bool go = {1}> {
            last, all = Loop (rounds, go, x) <
                body = b (int64 i, bool c, float[3, 2] s) => (bool d, float[3, 2] n, float[3, 2] o) {
                    d = Identity(c)
                    n = Neg(s)
                    o = Neg(n)
                }
            >
        }"""
    )
    assert (found["last"], found["all"], found["n"]) == ((3, 2), (4, 3, 2), (3, 2))


def test_a_scan_goes_along_the_axes_it_names() -> None:
    found = infer(
        """g (float[2] start, float[2, 5] x) => (float[2] last, float[2, r] all) {
            last, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                body = b (float[2] s, float[2] v) => (float[2] n, float[2] o) {
                    n = Add(s, v)
                    o = Neg(n)
                }
            > (start, x)
        }"""
    )
    assert (found["v"], found["last"], found["all"]) == ((2,), (2,), (2, 5))


def test_a_tensor_out_of_a_sequence_whose_type_the_file_does_not_tell() -> None:
    text = """g (float[2,3] x, float[2,3] y, int64 at) => (float[N,M] out) {
        s = SequenceConstruct(x, y)
        t = SequenceErase(s, at)
        out = SequenceAt(t, at)
    }"""
    found = infer(text)
    assert found["out"] == (2, 3)
    assert not found.keys() & {"s", "t"}
