"""fold: the outputs stay what they were, whatever the constants look like."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import compress
from compress.changes import Reason
from compress.graph.fold import fold
from compress.graph.session import session
from compress.passes import Fold

CONV = "h = Conv<pads=[1,1,1,1]{more}>(x, w) y = BatchNormalization(h, s, c, m, v)"
IMAGE = "g (float[N,4,6,6] x) => (float[N,8,6,6] y) {{ {body} }}"
ROWS = "g (float[N,4] x) => (float[A,B] y) {{ {body} }}"
PAD = "h = Pad(x, p) y = Conv(h, w)"
# ruff: noqa: E501  (one case a line)
CASES = {
    "conv": (IMAGE, CONV.format(more=""), (8, 4, 3, 3), {}, ["Conv"]),
    "grouped": (IMAGE, CONV.format(more=", group=2"), (8, 2, 3, 3), {}, ["Conv"]),
    "transposed": (
        IMAGE.replace("6,6] y", "8,8] y"),
        "h = ConvTranspose<group=2>(x, w) y = BatchNormalization(h, s, c, m, v)",
        (4, 4, 3, 3),
        {},
        ["ConvTranspose"],
    ),
    "conv read twice": (IMAGE, CONV.format(more="").replace("y =", "k =") + " y = Add(h, k)", (8, 4, 3, 3), {}, None),
    "gemm": (
        ROWS,
        "h = Gemm<alpha=2.0, beta=0.5>(x, w, b) y = BatchNormalization(h, s, c, m, v)",
        (4, 8),
        {"b": (8,)},
        ["Gemm"],
    ),
    "vector bias": (ROWS, "h = MatMul(x, w) y = Add(b, h)", (4, 8), {"b": (8,)}, ["Gemm"]),
    "column bias": (ROWS, "h = MatMul(x, w) y = Add(h, b)", (4, 8), {"b": (3, 1)}, ["MatMul", "Add"]),
    "deep bias": (ROWS.replace("A,B", "A,B,C"), "h = MatMul(x, w) y = Add(h, b)", (4, 8), {"b": (1, 1, 8)}, ["MatMul", "Add"]),
    "pad": (IMAGE, PAD, (8, 4, 3, 3), {"p": [0, 0, 1, 1, 0, 0, 1, 1]}, ["Conv"]),
    "pad channels": (IMAGE.replace("6,6] y", "4,4] y"), PAD, (8, 6, 3, 3), {"p": [0, 1, 0, 0, 0, 1, 0, 0]}, ["Pad", "Conv"]),
    "pad reflecting": (IMAGE, PAD.replace("Pad", 'Pad<mode="reflect">'), (8, 4, 3, 3), {"p": [0, 0, 1, 1, 0, 0, 1, 1]}, ["Pad", "Conv"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_outputs_stay(case, build, normal):
    frame, body, weight, others, operators = CASES[case]
    weights = {"w": normal(*weight)}
    weights |= {name: np.array(size) if name == "p" else normal(*size) for name, size in others.items()}
    if "BatchNormalization" in body:
        weights |= {"s": normal(8), "c": normal(8), "m": normal(8), "v": np.abs(normal(8)) + 0.5}
    proto = build(frame.format(body=body), **weights)
    x = normal(3, 4, 6, 6) if frame.startswith("g (float[N,4,6") else normal(3, 4)
    expected = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    folded = compress.load(proto)
    fold(folded.ir)
    np.testing.assert_allclose(folded.run({"x": x})[0], expected, rtol=1e-4, atol=1e-4)
    if operators is not None:
        assert [node.op_type for node in folded.graph] == operators


def test_a_sum_stays_where_add_does_not_broadcast_yet(build, normal):
    text = "g (float[N,4] x) => (float[N,4] y) { y = Sum(x, x, x) }"
    x = normal(3, 4)
    result = Fold()(compress.load(build(text, opset=6, ir_version=3)))
    np.testing.assert_allclose(result.run({"x": x})[0], 3 * x, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("h = Gemm<beta=0.0>(x, w) y = Add(h, b)", {"w": (4, 8), "b": (8,)}),
        ("h = Gemm(x, w, c) y = Mul(h, b)", {"w": (4, 8), "c": (3, 1), "b": (8,)}),
        ("n = BatchNormalization(x, s, s, s, s) y = Gemm<beta=0.0>(n, w)", {"w": (4, 8), "s": (4,)}),
    ],
)
def test_a_gemm_keeps_what_it_adds(text, weights, build, normal):
    proto = build(
        f"g (float[3,4] x) => (float[3,8] y) {{ {text} }}",
        **{n: np.abs(normal(*s)) for n, s in weights.items()},
    )
    model, x = compress.load(proto), normal(3, 4)
    np.testing.assert_allclose(Fold()(model).run({"x": x})[0], model.run({"x": x})[0], rtol=1e-4, atol=1e-5)


def test_a_bias_that_an_exporter_writes_as_an_expand_of_zero_does_not_keep_what_follows_apart(build, normal):
    text = """g (float[N,4,6,6] x) => (float[N,40,6,6] y) {
        zero = Constant<value_float=0.0>() size = Constant<value_ints=[40]>() b = Expand(zero, size)
        h = Conv<pads=[1,1,1,1]>(x, w, b) y = BatchNormalization(h, s, c, m, v)
    }"""
    statistics = {name: normal(40) for name in "scm"} | {"v": np.square(normal(40)) + 1}
    model = compress.load(build(text, w=normal(40, 4, 3, 3), **statistics))
    x = normal(2, 4, 6, 6)
    folded = Fold()(model)
    assert [node.op_type for node in folded.graph] == ["Conv"]
    np.testing.assert_allclose(folded.run({"x": x})[0], model.run({"x": x})[0], rtol=1e-4, atol=1e-4)


def test_integers_are_not_divided_beforehand(build):
    weight, x = np.arange(-16, 16, dtype=np.int32).reshape(4, 8), np.arange(12, dtype=np.int32).reshape(3, 4)
    text = "g (int32[3,4] x) => (int32[3,8] y, int32[3,8] z) { h = MatMul(x, w) y = Div(h, k) i = MatMul(x, w) z = Add(i, b) }"
    model = compress.load(build(text, w=weight, k=np.int32(3), b=np.arange(8, dtype=np.int32)))
    for found, wanted in zip(Fold()(model).run({"x": x}), model.run({"x": x}), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_every_float_type_folds(kind, build, normal):
    name = {np.float16: "float16", np.float64: "double"}[kind]
    weights = {
        name: normal(4, 8).astype(kind) if name == "w" else np.abs(normal(8)).astype(kind) for name in "wbk"
    }
    proto = build(f"g ({name}[3,4] x) => ({name}[3,8] y) {{ h = Gemm(x, w, b) y = Mul(h, k) }}", **weights)
    model, x = compress.load(proto), normal(3, 4).astype(kind)
    folded = Fold()(model)
    assert [node.op_type for node in folded.graph] == ["Gemm"]
    np.testing.assert_allclose(folded.run({"x": x})[0], model.run({"x": x})[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("factor", [1e6, 1e-9])
def test_what_its_type_does_not_hold_is_not_folded(factor, build, normal):
    text = "g (float[3,16] x) => (float[3,16] y) { f = Cast<to=1>(w) h = MatMul(x, f) y = Mul(h, k) }"
    model = compress.load(build(text, w=normal(16, 16).astype(np.float16), k=np.float32(factor)))
    x = normal(3, 16)
    wanted = model.run({"x": x})[0]
    np.testing.assert_allclose(Fold()(model).run({"x": x})[0], wanted, rtol=1e-3, atol=1e-3 * factor)


def test_a_tied_embedding_is_not_copied(transformer):
    before = transformer.weight_bytes
    fold(transformer.ir)
    assert transformer.weight_bytes <= before


def test_the_account_counts_operators_and_bytes(build, normal):
    frame, body, weight, *_ = CASES["conv"]
    norm = {"s": normal(8), "c": normal(8), "m": normal(8), "v": np.abs(normal(8)) + 0.5}
    model = compress.load(build(frame.format(body=body), w=normal(*weight), **norm))
    folded = Fold()(model)
    operator, weights = folded.changes[-2:]
    assert (operator.layer, operator.action) == ("BatchNormalization", "1 of 1 nodes folded away")
    assert (weights.bytes_before, weights.bytes_after) == (model.weight_bytes, folded.weight_bytes)
    assert Fold()(folded).changes[-1].skipped == Reason.ABSENT


def test_what_a_runtime_finds_by_itself_is_left_out_on_request(build, normal):
    text = "g (float[N,4] x) => (float[N,2] y) { h = MatMul(x, w) y = Relu(h) }"
    model = compress.load(onnx.shape_inference.infer_shapes(build(text, w=normal(4, 2))))
    assert model.graph[0].outputs[0].type is not None
    assert Fold(strip=True)(model).graph[0].outputs[0].type is None


BEFORE = {
    "Mul": ("p = Mul(x, v)", True),
    "number": ("p = Mul(n, x)", True),
    "Add before what pads nothing": ("p = Add(x, v)", True),
    "Sub from": ("p = Sub(v, x)", True),
    "Div": ("p = Div(x, v)", True),
    "both": ("m = Mul(x, v) p = Add(m, n)", True),
    "divided by": ("p = Div(v, x)", False),
}


@pytest.mark.parametrize("case", BEFORE)
def test_what_scales_the_input_of_a_layer_goes_into_it(case: str, build: Any, normal: Any) -> None:
    text, folds = BEFORE[case]
    graph = f"g (float[N,4,6,6] x) => (float[N,8,4,4] y) {{ {text} [conv] y = Conv(p, w) }}"
    given = {"v": normal(4, 1, 1), "n": np.array([0.3], np.float32)}
    used = {name: each for name, each in given.items() if f"{name})" in text or f"({name}," in text}
    model = ir.from_proto(build(graph, w=normal(8, 4, 3, 3), **used))
    x = {"x": normal(2, 4, 6, 6)}
    before = session(model).run(None, x)[0]
    fold(model)
    assert ([node.op_type for node in model.graph] == ["Conv"]) == folds
    np.testing.assert_allclose(session(model).run(None, x)[0], before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", ["p = Sub(x, v)", "m = Mul(x, v) p = Mul(m, n)"])
def test_a_constant_that_makes_channels_of_one_stays(text: str, build: Any, normal: Any) -> None:
    """A grey picture that is normalized by the means of three colours has three channels only then."""
    graph = f"g (float[N,1,6,6] x) => (float[N,8,4,4] y) {{ {text} [conv] y = Conv(p, w) }}"
    numbers = {"v": normal(3, 1, 1)} | ({"n": np.array([0.3], np.float32)} if "n)" in text else {})
    model = ir.from_proto(build(graph, w=normal(8, 3, 3, 3), **numbers))
    x = {"x": normal(2, 1, 6, 6)}
    before = session(model).run(None, x)[0]
    fold(model)
    np.testing.assert_allclose(session(model).run(None, x)[0], before, rtol=1e-4, atol=1e-4)


def test_a_layer_that_pads_takes_a_factor_but_no_shift(build: Any, normal: Any) -> None:
    """Zeros around the input are not shifted, so the Add stays; the number before it goes through it."""
    text = """g (float[N,4,6,6] x) => (float[N,4,6,6] y) {
        m = Mul(n, x) p = Add(m, t) [conv] y = Conv<pads = [1, 1, 1, 1], group = 4>(p, w) }"""
    numbers = {"n": np.array([0.3], np.float32), "t": np.array([0.7], np.float32)}
    model = ir.from_proto(build(text, w=normal(4, 1, 3, 3), **numbers))
    x = {"x": normal(2, 4, 6, 6)}
    before = session(model).run(None, x)[0]
    fold(model)
    assert [node.op_type for node in model.graph] == ["Add", "Conv"]
    np.testing.assert_allclose(session(model).run(None, x)[0], before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("amounts", "value", "inside"),
    [
        ([0, 0, 1, 0, 0, 0, 2, 1], 0.0, True),
        ([0, 0, 1, 0, 0, 0, 2, 1], 1.0, False),
        ([0, 1, 0, 0, 0, 0, 0, 0], 0.0, False),
        ([0, 0, -1, 0, 0, 0, 0, 0], 0.0, False),
    ],
)
def test_a_convolution_pads_by_itself(
    amounts: list[int], value: float, inside: bool, build: Any, normal: Any
) -> None:
    text = """g (float[N,4,8,8] x) => (float[N,C,A,B] y) {
        r = Relu(x) p = Pad(r, amounts, value) [conv] y = Conv<pads = [0, 1, 0, 1]>(p, w) }"""
    stored = {"amounts": np.array(amounts), "value": np.array(value, np.float32)}
    channels = 4 + amounts[1]
    model = ir.from_proto(build(text, w=normal(8, channels, 3, 3), **stored))
    x = {"x": normal(2, 4, 8, 8)}
    before = session(model).run(None, x)[0]
    fold(model)
    assert ("Pad" not in [node.op_type for node in model.graph]) == inside
    np.testing.assert_allclose(session(model).run(None, x)[0], before, rtol=1e-4, atol=1e-4)
