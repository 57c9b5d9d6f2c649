"""Every entry of the operator table is true, and every room knows the operators that it should."""

from __future__ import annotations

import typing
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest

from compress.graph import facts
from compress.graph.facts import Operator
from compress.graph.facts.record import Contracting, Cost
from compress.prune.rules import RULES
from compress.trainable.operators import Role, lookup, names

FUSED = "no exporter writes it: the runtime and its tools fuse other operators to it"
CODES = "computes on integer codes"
NOT_TRAINED = {
    "DeformConv": "no torch function without torchvision",
    "Upsample": "Resize took its place",
    "TransposeMatMul": "FusedMatMul took its place",
    **dict.fromkeys(("BiasAdd", "FusedMatMulActivation", "GemmFastGelu", "NhwcFusedConv"), FUSED),
    **dict.fromkeys(("GroupNorm", "SkipGroupNorm"), FUSED),
    **dict.fromkeys(("MatMulInteger16", "QGelu", "QLinearAdd", "QLinearLeakyRelu", "QLinearMul"), CODES),
    **dict.fromkeys(("QLinearSigmoid", "QLinearWhere"), CODES),
}
"""Operators of ONNX and of ONNX Runtime that have no function in `compress.trainable.operators`, and why."""
KNOWN_TO_TORCH_ALONE = {"BlackmanWindow", "DFT", "HammingWindow", "HannWindow", "STFT"}
"""Operators that no other room asks about, and that need no entry for that reason."""
_NO_FLOATS = "ONNX's cases read booleans, integers or codes first"
UNCHECKED = {
    **dict.fromkeys(("And", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"), _NO_FLOATS),
    **dict.fromkeys(("ConvInteger", "DequantizeLinear", "Equal", "MatMulInteger", "Not", "Or"), _NO_FLOATS),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "Trilu", "Where", "Xor"), _NO_FLOATS),
    **dict.fromkeys(("Cast", "CastLike"), "ONNX's cases go between many types"),
    **dict.fromkeys(("CumSum", "Einsum", "ReduceLogSumExp"), "ONNX's cases are in float64, or empty"),
    **dict.fromkeys(("GlobalLpPool", "MaxRoiPool"), "ONNX has no case"),
    "SimplifiedLayerNormalization": "only ONNX Runtime knows it",
}
"""Standard operators whose claims no test checks on numbers, and why."""
CLAIMING: set[str] = set()
"""Standard operators of which something is claimed that numbers can refute; the tests fill it."""
LARGEST = 3000
"""Elements of the first input of a case that counts as small."""
ROUGHLY = {
    "MaxPool": "a window has fewer zeros than elements",
    "QuantizeLinear": "the code of zero is the zero point",
    "DequantizeLinear": "the code of zero is the zero point",
}
"""Operators whose zeros only an estimate takes as kept, and why."""


@dataclass(frozen=True)
class Case:
    """A node of ONNX's own tests, and what it reads."""

    model: onnx.ModelProto
    inputs: list[np.ndarray]

    @property
    def node(self) -> onnx.NodeProto:
        return self.model.graph.node[0]

    def given(self, index: int) -> np.ndarray | None:
        """Return what the node reads at an input."""
        if index >= len(self.node.input) or not self.node.input[index]:
            return None
        return self.inputs[[info.name for info in self.model.graph.input].index(self.node.input[index])]

    def run(self, changed: np.ndarray, index: int = 0) -> np.ndarray:
        """Return the first output with another content of one input."""
        name = self.node.input[index]
        feeds = {info.name: array for info, array in zip(self.model.graph.input, self.inputs, strict=True)}
        with np.errstate(all="ignore"):
            result = _evaluator(self.model.SerializeToString()).run(None, {**feeds, name: changed})
        return np.asarray(result[0])

    def draw(self, seed: int) -> np.ndarray:
        """Return another first input, within the range that the case has."""
        first = self.inputs[0]
        finite = first[np.isfinite(first)]
        low, high = float(finite.min()), float(finite.max())
        drawn = np.random.default_rng(seed).uniform(low, high, first.shape)
        return drawn.astype(first.dtype)


@cache
def _evaluator(model: bytes) -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(onnx.load_from_string(model))


@cache
def _cases() -> dict[str, list[Case]]:
    """Return ONNX's cases of one node that reads floats first, by operator."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    found: dict[str, list[Case]] = {}
    for case in collected:
        graph = case.model.graph
        if len(graph.node) != 1 or graph.node[0].domain or "train" in case.name:
            continue
        inputs = [np.asarray(each) if isinstance(each, np.generic) else each for each in case.data_sets[0][0]]
        floats = [each.dtype == np.float32 for each in inputs[:1] if isinstance(each, np.ndarray)]
        leads = [info.name for info in graph.input[:1]] == list(graph.node[0].input[:1])
        if floats == [True] and leads and inputs[0].size and _are_arrays(inputs, len(graph.input)):
            found.setdefault(graph.node[0].op_type, []).append(Case(case.model, list(inputs)))
    return found


def _are_arrays(inputs: Sequence[object], count: int) -> bool:
    return len(inputs) == count and all(isinstance(each, np.ndarray) for each in inputs)


def _claims(says: Callable[[Operator], object]) -> pytest.MarkDecorator:
    """Return the parameters of a test of all standard operators of which something is said."""
    said = facts.names(lambda operator: bool(says(operator)))
    CLAIMING.update(said)
    return pytest.mark.parametrize("name", sorted(set(said) - UNCHECKED.keys()))


def _own(name: str, most: int = 3) -> list[Case]:
    """Return the first cases of an operator that are small, or one that is not."""
    cases = _cases().get(name, [])
    return [case for case in cases if case.inputs[0].size <= LARGEST][:most] or cases[:1]


def _close(one: np.ndarray, other: np.ndarray, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(
        one, other, rtol=tolerance, atol=tolerance * max(np.abs(other).max(initial=0), 1e-3)
    )


@_claims(lambda operator: operator.linear)
def test_linear(name: str) -> None:
    for case in _own(name):
        x, y = case.draw(0), case.draw(1)
        _close(case.run(x + y) + case.run(np.zeros_like(x)), case.run(x) + case.run(y))


@_claims(lambda operator: operator.adds)
def test_adds(name: str) -> None:
    for case in _own(name):
        x = case.draw(0)
        _close(case.run(x), x + sum(case.inputs[1:]))


@_claims(lambda operator: operator.homogeneous)
def test_positively_homogeneous(name: str) -> None:
    for case in _own(name):
        x = case.draw(0)
        _close(case.run(np.float32(3) * x), 3 * case.run(x))


@_claims(lambda operator: operator.homogeneous and operator.channel_axis == 1)
def test_channels_are_scaled_apart(name: str) -> None:
    for case in _own(name):
        x = case.draw(0)
        scales = np.random.default_rng(2).uniform(0.5, 2, (1, x.shape[1], *[1] * (x.ndim - 2)))
        _close(case.run(x * scales.astype(np.float32)), case.run(x) * scales)


@_claims(lambda operator: operator.scale_invariant)
def test_scale_invariant(name: str) -> None:
    for case in _own(name):
        x = case.draw(0)
        _close(case.run(np.float32(8) * x), case.run(x), 1e-2)


@_claims(lambda operator: operator.monotone)
def test_monotone(name: str) -> None:
    for case in _own(name):
        x, y = case.draw(0), case.draw(1)
        low, high = case.run(np.minimum(x, y)), case.run(np.maximum(x, y))
        assert (low.astype(np.float64) <= high.astype(np.float64) + 1e-6).all()


@_claims(lambda operator: operator.moves_only)
def test_moves_only(name: str) -> None:
    for case in _own(name):
        operands = facts.find(name).operands
        x = case.draw(0)
        moved = [x, *(case.inputs[1:] if operands is None else case.inputs[1:operands])]
        assert np.isin(case.run(x), np.concatenate([each.ravel() for each in moved])).all()


@_claims(lambda operator: operator.elementwise)
def test_elementwise(name: str) -> None:
    for case in _own(name):
        x = case.draw(0)
        before = case.run(x)
        if x.size < 2 or before.shape != x.shape:
            continue  # another operand is larger
        place = (0,) * x.ndim
        changed = x.copy()
        changed[place] = case.draw(1)[place]
        same = case.run(changed) == before
        same |= np.isnan(before.astype(np.float64))
        same[place] = True
        assert same.all()


@_claims(lambda operator: operator.zeros)
def test_zeros(name: str) -> None:
    if name in ROUGHLY:
        return
    operator = facts.find(name)
    for case in _own(name):
        x = case.draw(0)
        x.ravel()[::2] = 0
        result = case.run(x).astype(np.float64)
        if operator.elementwise and result.shape == x.shape:
            assert (result[x == 0] == 0).all()
        share = (result == 0).mean() - (x == 0).mean()
        assert share >= 0 if operator.zeros == "makes" else share == 0


@_claims(lambda operator: operator.cuts)
def test_cuts(name: str) -> None:
    """What is within the range stays; what is cut stays cut."""
    for case in _own(name):
        once = case.run(case.draw(0))
        assert np.array_equal(case.run(once), once)


@_claims(lambda operator: operator.bias is not None and not operator.codes)
def test_bias_is_added_to_each_channel(name: str) -> None:
    operator = facts.find(name)
    assert operator.bias is not None
    assert operator.channel_axis is not None
    for case in _own(name, 9):
        bias = case.given(operator.bias)
        beta = [attribute.f for attribute in case.node.attribute if attribute.name == "beta"]
        if bias is None or beta:
            continue
        added = np.random.default_rng(3).normal(size=bias.shape).astype(np.float32)
        before, after = case.run(bias, operator.bias), case.run(bias + added, operator.bias)
        view = added
        if operator.channel_axis == 1 and bias.ndim == 1:
            view = added.reshape(-1, *[1] * (before.ndim - 2))
        _close(after - before, np.broadcast_to(view, before.shape), 1e-3)


@_claims(lambda operator: operator.scale is not None)
def test_scale_multiplies_each_channel(name: str) -> None:
    operator = facts.find(name)
    assert operator.scale is not None
    for case in _own(name):
        scale = case.given(operator.scale)
        assert scale is not None
        zero, once, twice = (case.run(np.float32(times) * scale, operator.scale) for times in (0, 1, 2))
        _close(twice - zero, 2 * (once - zero), 1e-3)


@_claims(lambda operator: operator.weights and operator.cost != "selection")
def test_axes_of_weights(name: str) -> None:
    """Shapes of ONNX's cases agree with the axes of channels that the table gives."""
    import onnx_ir as ir

    operator = facts.find(name)
    axis = operator.channel_axis
    assert axis is not None
    for case in _own(name, 9):
        numbers = {attribute.name: attribute.i for attribute in case.node.attribute}
        group = numbers.get("group", 1)
        first = case.given(0)
        assert first is not None
        output = case.run(first)
        place, *_ = facts.weights(ir.serde.deserialize_node(case.node))
        weight = case.given(place.index)
        assert weight is not None
        assert place.inputs is not None
        if numbers.get("transA") or (operator.cost == "product" and weight.ndim != 2):
            continue
        transposed = operator.cost == "transposed convolution"
        outputs, inputs = (group, 1) if transposed else (1, group)
        assert first.shape[axis] == weight.shape[place.inputs] * inputs
        if not operator.is_recurrent:
            assert output.shape[axis] == weight.shape[place.outputs] * outputs
        else:
            assert weight.shape[place.outputs] == operator.gates * numbers["hidden_size"]


def test_trainable_knows_what_the_table_says_is_computed_on_floats() -> None:
    said = {
        each.name: lookup(each.domain, each.name, 23)
        for each in facts.OPERATORS.values()
        if each.domain in ("", facts.MICROSOFT) and not each.codes
        if each.elementwise or each.moves_only or each.linear or each.normalizes or each.contracts
    }
    without = {name for name, function in said.items() if function is None}
    done = NOT_TRAINED.keys() - without
    assert not done, f"take {sorted(done)} out of NOT_TRAINED in tests/contract/test_facts.py"
    absent = without - NOT_TRAINED.keys()
    assert not absent, (
        f"write functions for {sorted(absent)} in a file of compress/trainable/operators, or say why not in "
        "NOT_TRAINED of tests/contract/test_facts.py"
    )


def test_weights_are_learnt() -> None:
    for (domain, name), operator in facts.OPERATORS.items():
        entry = lookup(domain, name, 23)
        if entry is None or operator.codes:
            continue
        for weight in operator.weights:
            assert entry.role(weight.index) in (Role.WEIGHT, Role.MATRIX), (
                f"the table says that input {weight.index} of {name} is a weight; annotate that parameter of "
                "its function in compress/trainable/operators as Weight or Matrix"
            )


@pytest.mark.parametrize(("domain", "name"), [each for each in names() if each[0] != "compress.training"])
def test_what_torch_computes_is_in_the_table(domain: str, name: str) -> None:
    assert facts.find(name, domain).is_known or name in KNOWN_TO_TORCH_ALONE, _enter(name)


@pytest.mark.parametrize("name", RULES)
def test_what_pruning_has_a_rule_for_is_in_the_table(name: str) -> None:
    assert facts.find(name).is_known, _enter(name)


def test_pruning_has_a_rule_for_all_that_is_elementwise() -> None:
    said = facts.names(lambda operator: operator.elementwise and operator.channel_axis is None)
    assert not set(said) - set(RULES), "every elementwise operator has the rule in compress/prune/rules"


def test_every_cost_has_a_formula() -> None:
    from compress.estimator.operators import READERS

    known = {cost for kind in typing.get_args(Cost) for cost in typing.get_args(kind)}
    contracting = set(typing.get_args(Contracting))
    nameless = ({each.cost for each in facts.OPERATORS.values()} - known) | (set(READERS) - contracting)
    assert not nameless, f"add {sorted(nameless)} to Contracting in compress/graph/facts/record.py"
    absent = contracting - set(READERS)
    assert not absent, (
        f"write a function for {sorted(absent)} and add it to READERS in compress/estimator/operators.py"
    )


def _enter(name: str) -> str:
    return (
        f"{name} has no entry in compress/graph/facts: add one line to the file of its kind (elementwise, "
        "movement, products or statistics); the attributes are told in record.py"
    )


def test_every_claim_is_checked_or_listed() -> None:
    """A claim without a case would pass whatever it says."""
    unchecked = {name for name in CLAIMING if not _own(name)}
    assert not unchecked - UNCHECKED.keys(), (
        f"no case of ONNX checks what the table says of {sorted(unchecked - UNCHECKED.keys())}; say why in "
        "UNCHECKED of tests/contract/test_facts.py"
    )
    assert not UNCHECKED.keys() - unchecked, "these have cases; take them out of UNCHECKED"
