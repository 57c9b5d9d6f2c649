"""int8-dynamic: which kernels run, and how far their results are from float."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import compress
from compress.cpu import weight_bits
from compress.passes import Int8Dynamic
from compress.passes.base import REGISTRY


def distance(found, expected):
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)


# ruff: noqa: E501  (a graph a line)
@pytest.mark.parametrize(
    ("text", "weights", "size", "kernels"),
    [
        ("g (float[N,T,32] x) => (float[N,T,16] y) { y = MatMul(x, w) }", {"w": (32, 16)}, (2, 3, 32), {"DynamicQuantizeMatMul"}),
        ("g (float[N,T,32] x) => (float[N,T,16] y) { h = MatMul(x, w) y = Add(h, b) }", {"w": (32, 16), "b": (16,)}, (2, 3, 32), {"DynamicQuantizeMatMul"}),
        ("g (float[N,32] x) => (float[N,16] y) { y = Gemm(x, w, b) }", {"w": (32, 16), "b": (16,)}, (3, 32), {"DynamicQuantizeMatMul"}),
        ("g (float[N,32] x) => (float[N,16] y) { y = Gemm<transB=1>(x, w, b) }", {"w": (16, 32), "b": (1, 16)}, (3, 32), {"DynamicQuantizeMatMul"}),
        ("g (float[N,32] x) => (float[N,8] y, float[N,16] z) { y = MatMul(x, w) z = MatMul(x, v) }", {"w": (32, 8), "v": (32, 16)}, (3, 32), {"DynamicQuantizeLinear", "MatMulIntegerToFloat"}),
        ("g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, w) }", {"w": (32, 32)}, (3, 32), {"DynamicQuantizeMatMul", "Relu"}),
        ("g (float[32] x) => (float[16] y) { y = MatMul(x, w) }", {"w": (32, 16)}, (32,), {"DynamicQuantizeMatMul"}),
        ("g (float[N,32] x) => (float[N,9] y) { y = Gemm<alpha=0.5>(x, w) }", {"w": (32, 9)}, (3, 32), {"DynamicQuantizeMatMul"}),
        ("g (float[N,8,9] x) => (float[N,4,7] y) { y = Conv(x, w) }", {"w": (4, 8, 3)}, (2, 8, 9), {"Conv"}),
    ],
    ids=["matmul", "with bias", "gemm", "transB", "one input twice", "one weight twice", "vector", "scaled", "convolution"],
)  # fmt: skip
def test_layers_run_in_the_fused_kernels(build, normal, running, text, weights, size, kernels):
    model = compress.load(build(text, **{name: normal(*shape) for name, shape in weights.items()}))
    small = Int8Dynamic()(model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    assert set(running(small)) == kernels
    assert not any(
        each.dtype == ir.DataType.FLOAT and len(each.shape) > 1 and each.const_value.size > 16
        for each in small.graph.initializers.values()
    )
    feeds = {"x": normal(*size)}
    for found, expected in zip(small.run(feeds), model.run(feeds), strict=True):
        assert found.shape == expected.shape
        assert distance(found, expected) < 0.02


def test_the_arithmetic_is_that_of_the_standard(build, normal):
    """The fused kernels against the reference evaluator on the file as it stands."""
    model = compress.load(
        build("g (float[N,32] x) => (float[N,16] y) { y = Gemm(x, w, b) }", w=normal(32, 16), b=normal(16))
    )
    small = Int8Dynamic()(model)
    feeds = {"x": normal(5, 32)}
    expected = onnx.reference.ReferenceEvaluator(ir.to_proto(small.ir)).run(None, feeds)[0]
    np.testing.assert_allclose(small.run(feeds)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("inputs", ["x, w, r", "x, w, r, b", "x, w, r, b, , h, c", "x, w, r, b, , , , p"])
def test_lstms_run_in_their_integer_kernel(build, normal, running, direction, inputs):
    ways = 1 + (direction == "bidirectional")
    text = f'g (float[T,N,24] x) => (float[T,{ways},N,32] y, float[{ways},N,32] last) {{ y, last = LSTM<hidden_size=32, direction="{direction}">({inputs}) }}'
    sizes = {
        "w": (ways, 128, 24),
        "r": (ways, 128, 32),
        "b": (ways, 256),
        "h": (ways, 2, 32),
        "c": (ways, 2, 32),
        "p": (ways, 96),
    }
    used = {
        name: normal(*size) / np.float32(6)
        for name, size in sizes.items()
        if name in inputs.replace(",", "").split()
    }
    model = compress.load(build(text, **used))
    small = Int8Dynamic()(model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    assert running(small) == ["DynamicQuantizeLSTM"]
    assert small.weight_bytes < 0.45 * model.weight_bytes
    feeds = {"x": normal(7, 2, 24)}
    for found, expected in zip(small.run(feeds), model.run(feeds), strict=True):
        assert distance(found, expected) < 0.03


@pytest.mark.parametrize("attributes", ["layout=1", 'activations=["Sigmoid", "Relu", "Tanh"]'])
def test_lstms_that_the_kernel_does_not_know_keep_float_arithmetic(build, normal, running, attributes):
    text = f"g (float[S,T,24] x) => (float[A,B,C,D] y) {{ y = LSTM<hidden_size=32, {attributes}>(x, w, r) }}"
    model = compress.load(build(text, w=normal(1, 128, 24) / 6, r=normal(1, 128, 32) / 6))
    small = Int8Dynamic()(model)
    assert small.weight_bytes < 0.3 * model.weight_bytes
    if "layout" not in attributes:  # the runtime has no float kernel for that layout either
        feeds = {"x": normal(3, 2, 24)}
        assert distance(small.run(feeds)[0], model.run(feeds)[0]) < 0.03


def test_a_tied_embedding_is_stored_once(transformer, running):
    small = Int8Dynamic()(transformer)
    assert "MatMul" in running(small), "attention's products have no weights"
    tables = [each for each in small.graph.initializers.values() if each.shape == ir.Shape((64, 32))]
    assert [each.dtype for each in tables] == [ir.DataType.INT8]
    feeds = next(transformer.batches())
    assert distance(small.run(feeds)[0], transformer.run(feeds)[0]) < 0.03


def as_without_vnni(values, weight):
    """Multiply as x86 does without VNNI: pairs of products are summed in 16 bits, which saturate."""
    products = values.astype(np.int32)[:, :, None] * weight.astype(np.int32)
    pairs = np.clip(products[:, ::2] + products[:, 1::2], -(2**15), 2**15 - 1)
    return pairs.sum(1)


@pytest.mark.parametrize("kind", ["int8-static", "int8-dynamic"])
@pytest.mark.parametrize("sign", [1, -1, 0])
def test_adversarial_weights_do_not_saturate_in_seven_bits(build, monkeypatch, kind, sign):
    """All weights and inputs at their extremes: exact in 7 bits, which a machine without VNNI gets by itself."""
    weight = np.full((64, 16), sign or 1, np.float32)
    if not sign:
        weight[:, ::2] = -1
    feeds = {"x": np.ones((2, 64), np.float32)}
    model = compress.load(
        build("g (float[N,64] x) => (float[N,16] y) { y = MatMul(x, w) }", w=weight), calibration=[feeds]
    )
    monkeypatch.setattr("compress.cpu.flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    exact = {}
    for bits in ("auto", 8):
        small = REGISTRY[kind](weight_bits=bits)(model)
        stored = small.graph.initializers["w.quantized"].const_value.numpy()
        rows = np.full((2, 64), 255, np.uint8)
        exact[bits] = bool(
            (as_without_vnni(rows, stored) == rows.astype(np.int32) @ stored.astype(np.int32)).all()
        )
    assert exact == {"auto": True, 8: False}


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_constant_activations_and_dead_channels(build, normal, value):
    weight = normal(32, 16)
    weight[:, 0], weight[:, 1] = 0, 1e-30
    model = compress.load(build("g (float[N,32] x) => (float[N,16] y) { y = MatMul(x, w) }", w=weight))
    feeds = {"x": np.full((3, 32), value, np.float32)}
    found, expected = Int8Dynamic()(model).run(feeds)[0], model.run(feeds)[0]
    # The activations are exact; 32 weights a channel are uniformly off by up to half a step.
    step = np.abs(weight).max(0) / (2 ** (weight_bits("auto") - 1) - 1)
    assert (np.abs(found - expected) <= 4 * step * abs(value) * np.sqrt(32 / 12) + 1e-6).all()


def test_infinite_weights_stay_with_a_record(build, normal):
    weight = normal(32, 16)
    weight[3, 4] = np.inf
    model = compress.load(build("g (float[N,32] x) => (float[N,16] y) { y = MatMul(x, w) }", w=weight))
    changes = Int8Dynamic()(model).changes
    assert not any(each.action for each in changes) and "infinite" in changes[0].skipped
