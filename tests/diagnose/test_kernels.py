"""Findings on the kernels that the runtime would run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compress.diagnose import kernels

CODES = np.full((8, 4), 100, np.int8)


def value(name: str, content: np.ndarray | None = None) -> ir.Value:
    return ir.val(name, const_value=None if content is None else ir.tensor(content, name=name))


def graph(*nodes: ir.Node) -> ir.Graph:
    return ir.Graph([], [], nodes=nodes, opset_imports={"": 21, "com.microsoft": 1})


def dequantized(name: str, codes: ir.Value) -> ir.Node:
    return ir.node("DequantizeLinear", [codes, value("s", np.float32(0.1))], name=name)


@pytest.mark.parametrize(
    ("input_too", "weight_too", "problem"),
    [
        (False, True, "its weight is dequantized at every run"),
        (True, False, "its weight is not quantized"),
        (True, True, "in float between Q/DQ pairs"),
    ],
)
def test_a_float_kernel_on_dequantized_values_is_found(
    input_too: bool, weight_too: bool, problem: str
) -> None:
    x, w = dequantized("dx", value("x")), dequantized("dw", value("w", CODES))
    product = ir.node(
        "MatMul",
        [
            x.outputs[0] if input_too else value("x"),
            w.outputs[0] if weight_too else value("v", np.ones((8, 4))),
        ],
        name="product",
    )
    used = [node for node, taken in ((x, input_too), (w, weight_too)) if taken]
    (finding,) = kernels.unfused(graph(*used, product))
    assert finding.layer == "product" and problem in finding.problem


def test_rows_of_an_expanded_table_are_found_and_plain_products_are_not() -> None:
    table = dequantized("dt", value("t", CODES))
    rows = ir.node("Gather", [table.outputs[0], value("i")], name="rows")
    product = ir.node("MatMul", [rows.outputs[0], value("v", np.ones((4, 4), np.float32))], name="product")
    (finding,) = kernels.unfused(graph(table, rows, product))
    assert finding.layer == "rows" and "gather the integers first" in finding.advice


@pytest.mark.parametrize(
    ("attributes", "problems"),
    [
        ({"block_size": 32, "accuracy_level": 4}, []),
        ({"block_size": 32}, ["MatMulNBits without accuracy level 4"]),
        ({"block_size": 512}, ["MatMulNBits without accuracy level 4", "MatMulNBits with blocks of 512"]),
    ],
)
def test_blocked_products_need_the_fast_level_and_usual_blocks(
    attributes: dict[str, Any], problems: list[str]
) -> None:
    node = ir.node(
        "MatMulNBits", [value("x"), value("w", CODES)], attributes, domain="com.microsoft", name="n"
    )
    assert [finding.problem for finding in kernels.slow(graph(node))] == problems


@pytest.mark.parametrize(
    ("codes", "saturates", "problem"),
    [
        (CODES, True, "8-bit signed weights"),
        (CODES // 2, True, None),
        (CODES.astype(np.uint8), True, "unsigned weights"),
        (CODES, False, None),
    ],
)
def test_wide_codes_are_found_where_sums_saturate(
    codes: np.ndarray, saturates: bool, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "saturates", lambda: saturates)
    node = ir.node("MatMulInteger", [value("x"), value("w", codes)], name="n")
    found = [finding.problem for finding in kernels.slow(graph(node))]
    assert len(found) == (problem is not None) and all(problem in each for each in found if problem)
