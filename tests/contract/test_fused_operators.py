"""Every operator of ONNX Runtime's own in the table gives the runtime's numbers, and its gradient is true."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import helper

from compress.errors import ModelError
from compress.trainable.module import Trainable
from compress.trainable.operators import names

MICROSOFT = "com.microsoft"
ELSEWHERE = {"MatMulNBits"}
"""Operators whose arithmetic other tests hold."""


def _f(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def _i(*numbers: Any, dtype: type = np.int32) -> np.ndarray:
    return np.array(numbers, dtype)


@dataclass(frozen=True)
class Case:
    operator: str
    inputs: list[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[int, ...] = (0,)
    """Which outputs to ask for."""


X, Z = _f(2, 3, 8), _f(2, 3, 8, seed=1)
IMAGE, KERNEL = _f(2, 4, 6, 6), _f(6, 2, 3, 3)
CACHES = [np.cos(_f(16, 2)), np.sin(_f(16, 2))]
QKV = [_f(2, 3, 8, seed=seed) for seed in (2, 3, 4)]
PAST = [_f(2, 2, 5, 4, seed=seed) for seed in (5, 6)]
WIDE = _f(2, 3, 32)
SHARED = [_f(2, 3, 16, seed=seed) for seed in (7, 8)]
OLDER = [_f(2, 1, 5, 16, seed=seed) for seed in (9, 10)]
WIDE_CACHES = [np.cos(_f(16, 8)), np.sin(_f(16, 8))]
EMBEDDINGS = [_f(20, 8), _f(6, 8), _f(2, 8), _f(8), _f(8, seed=1)]
TOKENS = _i([1, 2, 3], [4, 0, 19])
HEADS = {"num_heads": 2}
GROUPED = {"num_heads": 2, "kv_num_heads": 1}

CASES = [
    Case("Gelu", [X]),
    Case("BiasGelu", [X, _f(8)]),
    Case("FastGelu", [X]),
    Case("FastGelu", [X, _f(8)]),
    Case("QuickGelu", [X], {"alpha": 1.5}),
    Case("FusedMatMul", [X, _f(2, 8, 4)], {"alpha": 0.5}),
    Case("FusedMatMul", [X, _f(4, 8)], {"transB": 1}),
    Case("FusedMatMul", [_f(2, 8, 3), _f(2, 8, 4)], {"transA": 1, "alpha": 2.0}),
    Case("FusedGemm", [_f(3, 8), _f(8, 4), _f(4)], {"activation": "Relu"}),
    Case(
        "FusedGemm", [_f(8, 3), _f(8, 4)], {"activation": "LeakyRelu", "activation_alpha": 0.2, "transA": 1}
    ),
    Case("FusedConv", [IMAGE, KERNEL, _f(6)], {"activation": "Relu", "group": 2, "pads": [1, 1, 1, 1]}),
    Case("FusedConv", [IMAGE, KERNEL, _f(6), _f(2, 6, 4, 4)], {"activation": "Relu", "group": 2}),
    Case(
        "FusedConv",
        [IMAGE, KERNEL],
        {"activation": "Clip", "activation_params": [-0.51, 1.13], "group": 2, "strides": [2, 2]},
    ),
    Case(
        "FusedConv",
        [IMAGE, KERNEL],
        {"activation": "HardSigmoid", "activation_params": [0.2, 0.5], "group": 2},
    ),
    Case("FusedConv", [IMAGE, KERNEL], {"activation": "Sigmoid", "group": 2}),
    Case("FusedConv", [IMAGE, KERNEL], {"activation": "Tanh", "group": 2}),
    Case("SimplifiedLayerNormalization", [X, _f(8)], {"epsilon": 1e-3}),
    Case("SkipLayerNormalization", [X, Z, _f(8), _f(8, seed=1), _f(8, seed=2)], outputs=(0, 3)),
    Case("SkipLayerNormalization", [X, Z, _f(8)], {"epsilon": 1e-3}),
    Case("SkipSimplifiedLayerNormalization", [X, Z, _f(8), _f(8, seed=2)], outputs=(0, 3)),
    Case("EmbedLayerNormalization", [TOKENS, TOKENS % 2, *EMBEDDINGS], outputs=(0, 2)),
    Case(
        "EmbedLayerNormalization",
        [TOKENS, None, *EMBEDDINGS[:2], None, *EMBEDDINGS[3:], _i([1, 1, 0], [1, 1, 1]), TOKENS % 6],
        outputs=(0, 1),
    ),
    Case("RotaryEmbedding", [X, _i(2, dtype=np.int64), *CACHES]),
    Case(
        "RotaryEmbedding",
        [_f(2, 2, 3, 4), _i([4, 5, 6], [0, 1, 2], dtype=np.int64), *CACHES],
        {"interleaved": 1},
    ),
    Case("Attention", [X, _f(8, 24), _f(24)], HEADS),
    Case("Attention", [X, _f(8, 24), _f(24), _i([1, 1, 0], [1, 1, 1])], HEADS),
    Case("Attention", [X, _f(8, 24), _f(24), _i(2, 3)], HEADS),
    Case(
        "Attention",
        [X, _f(8, 24), _f(24), None, np.stack(PAST)],
        {**HEADS, "unidirectional": 1},
        outputs=(0, 1),
    ),
    Case("Attention", [X, _f(8, 20), _f(20)], {**HEADS, "qkv_hidden_sizes": [8, 8, 4], "scale": 0.3}),
    Case("Attention", [X, _f(8, 24), _f(24), None, None, _f(1, 2, 3, 3)], HEADS),
    Case("MultiHeadAttention", QKV, HEADS),
    Case("MultiHeadAttention", [*QKV, _f(24), _i([1, 1, 0], [1, 1, 1])], HEADS),
    Case("MultiHeadAttention", [*QKV, None, None, _f(2, 2, 3, 3)], {**HEADS, "scale": 0.3}),
    Case("MultiHeadAttention", [*QKV, None, None, None, *PAST], {**HEADS, "unidirectional": 1}, (0, 1, 2)),
    Case("GroupQueryAttention", [WIDE, *SHARED, None, None, _i(2, 2), _i(3)[0]], GROUPED, (0, 1, 2)),
    Case(
        "GroupQueryAttention", [_f(2, 3, 64), None, None, None, None, _i(2, 2), _i(3)[0]], GROUPED, (0, 1, 2)
    ),
    Case(
        "GroupQueryAttention",
        [WIDE, *SHARED, None, None, _i(2, 2), _i(3)[0], *WIDE_CACHES],
        {**GROUPED, "do_rotary": 1, "local_window_size": 2, "softcap": 2.0},
        (0, 1, 2),
    ),
    Case(
        "GroupQueryAttention",
        [WIDE[:, :1], *(part[:, :1] for part in SHARED), *OLDER, _i(5, 5), _i(6)[0], *WIDE_CACHES],
        {**GROUPED, "do_rotary": 1, "rotary_interleaved": 1},
        (0, 1, 2),
    ),
]


def _model(case: Case) -> onnx.ModelProto:
    given = {f"x{i}": array for i, array in enumerate(case.inputs) if array is not None}
    outputs = [f"y{i}" if i in case.outputs else "" for i in range(max(case.outputs) + 1)]
    domain = "" if case.operator == "SimplifiedLayerNormalization" else MICROSOFT
    node = helper.make_node(
        case.operator,
        [f"x{i}" if array is not None else "" for i, array in enumerate(case.inputs)],
        outputs,
        domain=domain,
        **case.attributes,
    )
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    results = [helper.make_tensor_value_info(name, 0, None) for name in outputs if name]
    for result in results:
        result.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    if case.operator == "EmbedLayerNormalization" and 1 in case.outputs:
        results[1].type.tensor_type.elem_type = onnx.TensorProto.INT32
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    graph = helper.make_graph([node], "g", inputs, results)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _feeds(case: Case) -> dict[str, np.ndarray]:
    return {f"x{i}": np.asarray(array) for i, array in enumerate(case.inputs) if array is not None}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operator)
def test_numbers_are_the_runtimes(case: Case) -> None:
    model, feeds = _model(case), _feeds(case)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)
    results = Trainable(ir.from_proto(model))(
        {name: torch.from_numpy(array) for name, array in feeds.items()}
    )
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.numpy(), wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operator)
def test_gradient(case: Case) -> None:
    module = Trainable(ir.from_proto(_model(case)))
    feeds = {name: torch.from_numpy(array) for name, array in _feeds(case).items()}
    free = [name for name, feed in feeds.items() if feed.is_floating_point()]
    inputs = [feeds[name].double().requires_grad_() for name in free]

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = module({**feeds, **dict(zip(free, tensors, strict=True))})
        return tuple(result for result in results if result.is_floating_point())

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_each_operator_has_a_case() -> None:
    tried = {case.operator for case in CASES}
    unknown = tried - {name for _, name in names()}
    assert not unknown, f"write functions for {sorted(unknown)} in a file of compress/trainable/operators"
    untried = {name for domain, name in names() if domain == MICROSOFT} - tried - ELSEWHERE
    assert not untried, f"add cases for {sorted(untried)} to CASES of tests/contract/test_fused_operators.py"


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case("FusedMatMul", [X, X], {"transBatchA": 1}), "transposed batches"),
        (Case("FusedGemm", [_f(3, 8), _f(8, 4)], {"activation": "Selu"}), "activation 'Selu'"),
        (Case("MultiHeadAttention", [X, _f(2, 3, 2, 2, 4), None], HEADS), "packed in one tensor"),
        (
            Case("GroupQueryAttention", [WIDE, *SHARED, *OLDER, _i(7, 6), _i(8)[0]], GROUPED),
            "pasts of different lengths",
        ),
    ],
)
def test_what_is_not_supported_is_refused(case: Case, reason: str) -> None:
    module = Trainable(ir.from_proto(_model(case)))
    with pytest.raises(ModelError, match=reason):
        module({name: torch.from_numpy(array) for name, array in _feeds(case).items()})
