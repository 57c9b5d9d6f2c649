"""Every pass accounts for every weight: it is changed, or a record gives a reason of the closed set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

import compress
import compress.passes
from compress.data import Data
from compress.errors import CompressError
from compress.graph.layers import layers
from compress.model import Model
from compress.passes.base import REGISTRY

Make = Callable[..., onnx.ModelProto]
TWICE = {"int8", "int4-weights", "float16"}
"""Passes that do what another one does too."""
NAMES = sorted(name for name, kind in REGISTRY.items() if kind.accounts and name not in TWICE)
MANY = "com.microsoft"
GRAPHS = {
    "shared": (
        "g (float[N,32] x) => (float[N,10] y) { [one] a = MatMul(x, w) b = Relu(a) [two] c = MatMul(b, w)"
        " [scaled] d = Gemm<beta = 0.5>(c, g, bias) e = Add(d, table) [last] y = MatMul(e, v) }",
        {"w": (32, 32), "g": (32, 32), "bias": (32,), "table": (1, 32), "v": (32, 10)},
    ),
    "experts": (
        "g (float[4,N,32] x) => (float[4,N,8] y)"
        ' { [experts] a = MatMul(x, w) b = Relu(a) [einsum] y = Einsum<equation = "eni,eio->eno">(b, v) }',
        {"w": (4, 32, 48), "v": (4, 48, 8)},
    ),
    "left": (
        "g (float[32,N] x) => (float[16,N] y) { [left] a = MatMul(w, x) [bare] y = MatMul(v, a) }",
        {"w": (48, 32), "v": (16, 48)},
    ),
    "two-way": (
        "g (float[T,N,16] x) => (float[T,2,N,32] y)"
        ' { [lstm] h = LSTM<hidden_size = 32, direction = "bidirectional">(x, w, r, b) y = Add(h, z) }',
        {"w": (2, 128, 16), "r": (2, 128, 32), "b": (2, 256), "z": (2, 1, 32)},
    ),
}


def branches(normal: Callable[..., np.ndarray]) -> onnx.ModelProto:
    """Return a model with a weight inside a branch of If, and one outside of it that only the other reads."""
    make, info = helper.make_node, helper.make_tensor_value_info
    tensors = {name: onnx.numpy_helper.from_array(normal(32, 32), name) for name in ("inner", "outer", "w")}
    bodies = {}
    for branch, weight in (("then_branch", "inner"), ("else_branch", "outer")):
        node = make("MatMul", ["h", weight], [branch], name=branch)
        own = [tensors["inner"]] if weight == "inner" else []
        out = info(branch, onnx.TensorProto.FLOAT, ["N", 32])
        bodies[branch] = helper.make_graph([node], branch, [], [out], own)
    nodes = [make("MatMul", ["x", "w"], ["h"], name="first"), make("If", ["c"], ["y"], name="if", **bodies)]
    inputs = [info("x", onnx.TensorProto.FLOAT, ["N", 32]), info("c", onnx.TensorProto.BOOL, [])]
    outputs = [info("y", onnx.TensorProto.FLOAT, ["N", 32])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [tensors["w"], tensors["outer"]])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def fused(normal: Callable[..., np.ndarray]) -> onnx.ModelProto:
    """Return a model of operators that only the runtime knows."""
    make, info = helper.make_node, helper.make_tensor_value_info
    sizes = {"words": (50, 32), "places": (8, 32), "gain": (32,), "shift": (32,)}
    sizes |= {"qkv": (32, 96), "bias": (96,), "w": (24, 32)}
    nodes = [
        make("EmbedLayerNormalization", ["ids", "", "words", "places", "", "gain", "shift"], ["e", "m"],
             name="embed", domain=MANY),
        make("Attention", ["e", "qkv", "bias"], ["a"], name="attend", num_heads=2, domain=MANY),
        make("FusedMatMul", ["a", "w"], ["y"], name="out", transB=1, domain=MANY),
    ]  # fmt: skip
    inputs = [info("ids", onnx.TensorProto.INT32, ["N", 8])]
    outputs = [info("y", onnx.TensorProto.FLOAT, ["N", 8, 24])]
    tensors = [onnx.numpy_helper.from_array(normal(*size), name) for name, size in sizes.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MANY, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.fixture(params=[*GRAPHS, "branches", "fused", "half"])
def model(request, build: Make, normal: Callable[..., np.ndarray]) -> Model:
    """A small model of a kind whose weights are easily overlooked."""
    kind = request.param
    if kind == "branches":
        proto, feeds = branches(normal), {"x": normal(4, 32), "c": np.array(True)}
    elif kind == "fused":
        proto, feeds = fused(normal), {"ids": np.arange(16, dtype=np.int32).reshape(2, 8)}
    elif kind == "half":
        text = "g (float16[N,32] x) => (float16[N,8] y) { [half] y = MatMul(x, w) }"
        proto, feeds = (
            build(text, w=normal(32, 8).astype(np.float16)),
            {"x": normal(4, 32).astype(np.float16)},
        )
    else:
        text, sizes = GRAPHS[kind]
        proto = build(text, **{name: normal(*size) for name, size in sizes.items()})
        shape = {"shared": (4, 32), "experts": (4, 3, 32), "left": (32, 5), "two-way": (3, 2, 16)}[kind]
        feeds = {"x": normal(*shape)}
    return compress.load(proto, calibration=[feeds] * 2)


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_is_left_without_a_reason(
    model: Model, name: str, accounted: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    if name == "finetune":  # which learns from labels where no pass has changed the model
        feeds = next(model.batches())
        model.calibration = Data([(feeds, model.run(feeds)[0] + 1)] * 2)
    settings = {"epochs": 1} if name in ("finetune", "qat") else {}
    if name == "per-layer":  # which does nothing unless told
        settings = {"weights": {layer.name: 8 for layer in layers(model.prepared().graph)}}
        if not settings["weights"]:
            pytest.skip("the model has no layer that a plan can name")
    if name in ("finetune", "qat") and "branches" in request.node.callspec.id:
        with pytest.raises(CompressError, match="torch does not run the graphs inside of it"):
            REGISTRY[name](**settings)(model)
        return
    accounted(model, REGISTRY[name](**settings)(model))
