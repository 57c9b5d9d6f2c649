"""Looking up what an operator is."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from compress.graph import facts


def _node(op_type: str, domain: str = "", **attributes: int) -> ir.Node:
    return ir.node(op_type, [ir.Value(name="x"), ir.Value(name="w")], attributes, domain=domain)


def test_names_are_looked_up_in_their_domain() -> None:
    assert facts.of(_node("Attention")).cost == "attention"
    assert facts.of(_node("Attention", facts.MICROSOFT)).cost == "projected attention"
    assert facts.named("Attention") is facts.find("Attention")
    assert facts.named("FusedConv") is facts.find("FusedConv", facts.MICROSOFT)


@pytest.mark.parametrize("name", ["QLinearConv", "DequantizeLinear", "QuantizeLinear", "Pad", "Range"])
def test_forms_of_the_runtime_are_the_standard_operators(name: str) -> None:
    # A quantized convolution runs with its channels last, as a com.microsoft operator.
    assert facts.find(name, facts.MICROSOFT) is facts.find(name)
    assert facts.find(name).cost != "unknown"


def test_what_the_runtime_runs_on_its_own_layouts_is_the_standard_operator() -> None:
    assert facts.find("Conv", facts.LAYOUTS[0]) is facts.find("Conv")
    assert facts.find("ReorderInput", facts.LAYOUTS[0]).cost == "layout"


def test_nothing_is_said_of_an_operator_that_is_not_in_the_table() -> None:
    unknown = facts.of(_node("Conv", "somebody.else"))
    assert unknown is facts.UNKNOWN
    assert not unknown.is_known
    assert not (unknown.contracts or unknown.moves_only or unknown.elementwise)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (_node("Gemm"), (facts.Weight(1, 1, 0),)),
        (_node("Gemm", transB=1), (facts.Weight(1, 0, 1),)),
        (_node("Gather"), (facts.Weight(0, 0, None),)),
        (_node("Gather", axis=1), ()),
        (_node("Relu"), ()),
    ],
)
def test_axes_of_weights_follow_the_attributes(node: ir.Node, expected: tuple[facts.Weight, ...]) -> None:
    assert facts.weights(node) == expected


def test_names_come_sorted_from_one_domain() -> None:
    assert facts.names(lambda operator: operator.is_recurrent) == ("GRU", "LSTM", "RNN")
    assert facts.names(lambda operator: operator.is_recurrent, facts.MICROSOFT) == ("DynamicQuantizeLSTM",)
