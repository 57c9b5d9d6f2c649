"""Every operator in the table passes ONNX's own node tests, and its gradient is the true one."""

from __future__ import annotations

import fnmatch
import warnings
from collections import defaultdict
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import helper, parser

from compress.trainable.module import Trainable, to_torch
from compress.trainable.operators import Role, lookup, names, torch_type

SKIPPED = {
    "test_cast_FLOAT*_to_*INT[24]": "torch has no integers of 4 bits and below",
    "test_training_dropout_default*": "the elements that drop are the reference's own random choice",
    "test_training_dropout": "the elements that drop are the reference's own random choice",
    "test_training_dropout_mask": "the elements that drop are the reference's own random choice",
    "test_identity_sequence": "a sequence of tensors, not a tensor",
    "test_identity_opt": "an optional tensor, not a tensor",
    "test_castlike_FLOAT*_to_*INT[24]*": "torch has no integers of 4 bits and below",
    "test_quantizelinear_*int[24]": "torch has no integers of 4 bits and below",
}
"""Cases that cannot pass, and why. Cases of element types that torch lacks are told by their types."""
BY_HAND = [
    "g (float[2,3,4] x) => (float[2,3,4] y) { y = MeanVarianceNormalization<axes=[0,2]>(x) }",
]
"""Graphs of one node in ONNX's text format, run on random floats and held to ONNX Runtime's numbers: for
operators without a node test of ONNX's that runs here, and for settings that no node test has."""
OLDEST = 11
READABLE = {ir.DataType.INT2, ir.DataType.INT4, ir.DataType.UINT2, ir.DataType.UINT4}
"""Types that the module holds as wider integers."""


WITHOUT_GRADIENT = frozenset(
    {"And", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Not", "Or", "Xor"}
    | {"BlackmanWindow", "ConstantOfShape", "EyeLike", "HammingWindow", "HannWindow", "Range"}
    | {"Cast", "CastLike", "Equal", "Hardmax", "NonZero", "Trilu"}
)
"""Operators on bits; on nothing; and those that step, change the type or have cases in integers alone."""


def _types(model: onnx.ModelProto) -> set[int]:
    graph = model.graph
    declared = {info.type.tensor_type.elem_type for info in [*graph.input, *graph.output, *graph.value_info]}
    casts = {attribute.i for node in graph.node for attribute in node.attribute if attribute.name == "to"}
    return declared | casts


def _current(model: onnx.ModelProto) -> bool:
    """Whether a case holds at the oldest opset there is a table for; older ones are moved."""
    for entry in model.opset_import:
        if not entry.domain and entry.version < OLDEST:
            since = {_since(node, entry.version) - _since(node, OLDEST) for node in model.graph.node}
            if since != {0}:
                return False
            entry.version = OLDEST
    return True


STANDARD = [(domain, name) for domain, name in names() if not domain and onnx.defs.has(name)]
"""Operators that ONNX has cases for; tests/contract/test_fused_operators.py holds the runtime's own."""


def _since(node: onnx.NodeProto, opset: int) -> int:
    return onnx.defs.get_schema(node.op_type, max_inclusive_version=opset).since_version


def _unknown_type(model: onnx.ModelProto) -> bool:
    """Whether a type takes part that torch has no kernels for."""
    for number in _types(model) - {0}:
        try:
            torch_type(number)
        except NotImplementedError:
            if ir.DataType(number) not in READABLE:
                return True
    return False


@cache
def _cases() -> dict[tuple[str, str], list[Any]]:
    """Return ONNX's cases by the operators in them, those that need others left out."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    table = {*names(), ("", "Constant")}
    found = defaultdict(list)
    for case in [*collected, *map(_by_hand, BY_HAND)]:
        operators = {(node.domain, node.op_type) for node in case.model.graph.node}
        if operators <= table and _current(case.model) and not _unknown_type(case.model):
            # An expanded case belongs to the operator it spells out, which its name tells.
            for operator in operators:
                found[operator].append(case)
    return found


def _by_hand(text: str) -> SimpleNamespace:
    """Return a case with what ONNX's own have."""
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(parser.parse_graph(text), opset_imports=opsets, ir_version=10)
    rng = np.random.default_rng(0)
    feeds = {
        info.name: rng.standard_normal(
            [size.dim_value for size in info.type.tensor_type.shape.dim], np.float32
        )
        for info in model.graph.input
    }
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    data = [(list(feeds.values()), session.run(None, feeds))]
    return SimpleNamespace(name=f"by hand: {text}", model=model, data_sets=data, rtol=1e-4, atol=1e-6)


def _skipped(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in SKIPPED)


def _feed(array: Any) -> torch.Tensor:
    tensor = ir.from_proto(array) if isinstance(array, onnx.TensorProto) else ir.tensor(np.asarray(array))
    return to_torch(tensor)


HALVES = {onnx.TensorProto.FLOAT16: torch.float16, onnx.TensorProto.BFLOAT16: torch.bfloat16}
"""Types that are computed in float32, and what their results are rounded to where ONNX computes them."""


def _check(case: Any) -> None:
    module = Trainable(ir.from_proto(case.model)).eval()
    for inputs, outputs in case.data_sets:
        named = zip(case.model.graph.input, inputs, strict=False)
        with torch.no_grad():
            results = module({info.name: _feed(array) for info, array in named if array is not None})
        for result, output, info in zip(results, outputs, case.model.graph.output, strict=True):
            expected = _feed(output)
            assert result.shape == expected.shape, case.name
            assert result.dtype == expected.dtype, case.name
            if not expected.dtype.is_floating_point:
                assert torch.equal(result, expected), case.name
                continue
            # One unit of the last place is what another order of sums may cost.
            stored = HALVES.get(info.type.tensor_type.elem_type, expected.dtype)
            relative = max(case.rtol, 2 * torch.finfo(stored).eps)
            finite = expected.double()[expected.isfinite()]
            absolute = max(case.atol, 1e-6 * float(finite.abs().max())) if finite.numel() else case.atol
            torch.testing.assert_close(result, expected, rtol=relative, atol=absolute, equal_nan=True)


@pytest.mark.parametrize("operator", STANDARD, ids=lambda operator: ".".join(filter(None, operator)))
def test_node_cases(operator: tuple[str, str]) -> None:
    cases = [case for case in _cases()[operator] if not _skipped(case.name)]
    own = [case for case in cases if operator == _owner(case)]
    assert cases, (
        f"ONNX has no node test that {operator[1]} can run: look at SKIPPED above, and at the name "
        "and attributes of its function in compress/trainable/operators; if all that is right, add a case to "
        "BY_HAND in tests/contract/test_operators.py"
    )
    for case in own:
        _check(case)


def _owner(case: Any) -> tuple[str, str]:
    """Return the operator that runs a case, so that each case runs once."""
    return min((node.domain, node.op_type) for node in case.model.graph.node if node.op_type != "Constant")


def test_every_skip_still_skips_something() -> None:
    known = {case.name for cases in _cases().values() for case in cases}
    for pattern in SKIPPED:
        assert fnmatch.filter(known, pattern), pattern


def test_most_cases_run() -> None:
    known = {case.name for cases in _cases().values() for case in cases if not _skipped(case.name)}
    assert len(known) > 1400


@pytest.mark.parametrize("operator", sorted({name for _, name in STANDARD} - WITHOUT_GRADIENT))
def test_gradient(operator: str) -> None:
    checked = 0
    for case in _cases()["", operator]:
        if len(case.model.graph.node) == 1 and not _skipped(case.name) and checked < 3:
            checked += _check_gradient(case)
    assert checked, (
        f"{operator} has no case on floats: add one to BY_HAND, or it to WITHOUT_GRADIENT if it has none"
    )


def _check_gradient(case: Any) -> bool:
    """Compare the gradient by every float input with differences, in double precision."""
    node = case.model.graph.node[0]
    entry = lookup("", node.op_type, case.model.opset_import[0].version)
    module = Trainable(ir.from_proto(case.model)).eval()
    given = zip(case.model.graph.input, case.data_sets[0][0], strict=False)
    feeds = {info.name: _feed(array) for info, array in given if array is not None}
    roles = {name: entry.role(place) for place, name in enumerate(node.input)}
    free = [
        name
        for name, feed in feeds.items()
        if feed.dtype in (torch.float32, torch.float64)
        and roles[name] not in (Role.HOST, Role.STATE)
        and not (feed.numel() == 0 or ("Loss" in node.op_type and name != node.input[0]))
    ]
    if not free:
        return False
    # The cases love the kinks at whole numbers, where a gradient is anyone's choice.
    feeds = {name: feed.double() if feed.is_floating_point() else feed for name, feed in feeds.items()}
    inputs = [(feeds[name] * 0.988 + 0.0123).requires_grad_() for name in free]

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = module({**feeds, **dict(zip(free, tensors, strict=True))})
        return tuple(result for result in results if result.is_floating_point())

    return torch.autograd.gradcheck(run, inputs, fast_mode=True)
