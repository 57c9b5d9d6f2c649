"""Layers that an original and a variant have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compress.diagnose.sites import EACH_RUN, Quantizer, sites, weight_rounding

Build = Callable[..., Any]
ORIGINAL = "g (float[N,4] x) => (float[N,4] y) { [one] h = MatMul(x, w) r = Relu(h) [two] y = MatMul(r, v) }"
STEP, ZERO = np.float32(0.5), np.int8(-128)


def read(build: Build, text: str, **weights: Any) -> ir.Graph:
    return ir.from_proto(build(text, **weights)).graph


def test_a_quantizer_stands_for_the_activation_behind_its_value(build: Build, normal: Any) -> None:
    w, v = normal(4, 4), normal(4, 4)
    variant = """g (float[N,4] x) => (float[N,4] y) {
        h = MatMul(x, w) q = QuantizeLinear(h, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, v)
    }"""
    original = read(build, ORIGINAL, w=w, v=v)
    (one, two), missing = sites(original, read(build, variant, w=w, v=v, s=STEP, z=ZERO))
    assert not missing
    assert (one.name, one.output, one.inputs) == ("one", ("r", "d"), ())
    assert one.quantizers == {"r": Quantizer(low=0.0, high=127.5, step=0.5)}
    assert (two.output, two.quantizers, two.is_integer) == (("y", "y"), {}, False)
    assert two.inputs == (("r", "d"),), "noise that arrives through the quantizer is not the layer's own"


def test_a_recurrent_layer_is_compared_at_the_first_output_that_it_has(build: Build, normal: Any) -> None:
    text = """g (float[12,N,4] x) => (float[1,N,8] h, float[1,N,8] i) {
        [last] _, h = GRU<hidden_size=8>(x, w, r) [both] i = Mul(h, h)
    }"""
    node = read(build, text, w=normal(1, 24, 4), r=normal(1, 24, 8))
    node[0].outputs[0].name = ""
    ((site,), missing) = sites(node, node)
    assert (site.output, missing) == (("h", "h"), [])


def test_layers_without_a_common_value_are_missing(build: Build, normal: Any) -> None:
    w, v = normal(4, 4), normal(4, 4)
    variant = "g (float[N,4] x) => (float[N,4] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }"
    found, missing = sites(read(build, ORIGINAL, w=w, v=v), read(build, variant, w=w, v=v))
    assert ([site.name for site in found], missing) == (["two"], ["one"])


def test_ranges_of_each_run_are_noticed(build: Build, normal: Any) -> None:
    w, codes = normal(4, 4), np.full((4, 4), 3, np.int8)
    text = "g (float[N,4] x) => (float[N,4] h) { [one] h = MatMul(x, w) }"
    variant = """g (float[N,4] x) => (float[N,4] h) {
        q, s, z = DynamicQuantizeLinear(x) i = MatMulInteger(q, c, z) f = Cast<to=1>(i) h = Mul(f, s)
    }"""
    ((site,), _) = sites(read(build, text, w=w), read(build, variant, c=codes))
    assert site.quantizers == {"x": EACH_RUN}
    assert site.weight_rounding == pytest.approx(1 / 12 / 9)


def test_rounding_is_told_from_packed_codes_around_their_middle() -> None:
    packed = np.full((2, 1, 16), 0x5B, np.uint8)  # 11 and 5, which are 3 from the middle
    node = ir.node(
        "MatMulNBits",
        [ir.val("x"), ir.val("w", const_value=ir.tensor(packed))],
        {"bits": 4, "block_size": 32, "K": 32, "N": 2},
        domain="com.microsoft",
    )
    assert weight_rounding(node) == pytest.approx(1 / 12 / 9)
    assert weight_rounding(None) == 0.0
