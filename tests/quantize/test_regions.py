"""Where integer arithmetic begins and ends."""

from __future__ import annotations

from typing import Any

import pytest

import compress
from compress.changes import Reason
from compress.quantize.regions import Regions, find

# ruff: noqa: E501  (a graph a line)


def regions(build: Any, text: str, chosen: Any = lambda *names: True, **weights: Any) -> Regions:
    return find(compress.load(build(text, **weights)).graph, chosen)


def names(found: Regions) -> set[str]:
    return {value.name or "" for value in found.readers}


def test_a_convolution_puts_out_integers_and_a_product_floats(build: Any, normal: Any) -> None:
    convolution = regions(
        build,
        "g (float[N,4,6,6] x) => (float[N,8,4,4] y) { h = Conv(x, w) y = Relu(h) }",
        w=normal(8, 4, 3, 3),
    )
    assert names(convolution) == {"x", "y"}, "the output behind the activation that the quantizer takes in"
    assert {value.name for value in convolution.final} == {"y"}
    product = regions(build, "g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(8, 4))
    assert names(product) == {"x"} and not product.final


def test_what_moves_values_shares_their_range(build: Any, normal: Any) -> None:
    text = "g (float[N,4,8,8] x) => (float[N,6,2,2] y) { s = Sigmoid(x) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s) t = Transpose<perm=[0,1,3,2]>(p) y = Conv(t, w) }"
    found = regions(build, text, w=normal(6, 4, 3, 3))
    values = {value.name: value for value in found.readers}
    assert found.range_owner(values["t"]) is values["s"]
    assert found.range_owner(values["s"]) is values["s"]


def test_a_residual_sum_joins_two_integer_layers(build: Any, normal: Any) -> None:
    text = "g (float[N,4,6,6] x) => (float[N,4,6,6] y) { a = Conv(x, w) b = Conv(a, v) s = Add(a, b) y = Conv(s, u) }"
    found = regions(build, text, w=normal(4, 4, 1, 1), v=normal(4, 4, 1, 1), u=normal(4, 4, 1, 1))
    assert names(found) == {"x", "a", "b", "s", "y"}
    assert {
        use[0].op_type for value in found.readers if value.name == "b" for use in found.readers[value]
    } == {"Add"}


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        (
            "g (float[N,8,9] x) => (float[N,4,11] y) { y = ConvTranspose(x, w) }",
            {"w": (8, 4, 3)},
            Reason.USE.because("ConvTranspose has no integer kernel"),
        ),
        (
            "g (float[N,8] x) => (float[N,8] y) { h = MatMul(x, w) y = Add(h, w) }",
            {"w": (8, 8)},
            Reason.SHARED.because("which stays in float, or reads it in another layout"),
        ),
        (
            "g (float[N,8] x) => (float[N,4] y) { y = Gemm<beta=0.5>(x, w, b) }",
            {"w": (8, 4), "b": (4,)},
            Reason.USE.because("its product or bias is scaled"),
        ),
    ],
)
def test_layers_that_stay_in_float_say_why(
    build: Any, normal: Any, text: str, weights: Any, reason: str
) -> None:
    found = regions(build, text, **{name: normal(*shape) for name, shape in weights.items()})
    assert set(found.skipped.values()) == {reason} and not found.readers


def test_layers_are_chosen_by_the_names_of_node_and_weight(build: Any, normal: Any) -> None:
    text = "g (float[N,8] x) => (float[N,4] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"
    found = regions(build, text, lambda node, weight: weight == "v", w=normal(8, 8), v=normal(8, 4))
    assert [layer.weight.name for layer in found.kernels] == ["v"]
    assert set(found.skipped.values()) == {Reason.LEFT_OUT} and names(found) == {"r"}


def test_a_split_and_a_weight_of_two_layers_stay_in_integers(build: Any, normal: Any) -> None:
    text = """g (float[N,4,6,6] x) => (float[N,4,6,6] y) {
        a = Conv(x, w) b, c = Split<axis=1, num_outputs=2>(a) d = Conv(b, v) e = Conv(c, v)
        k = Concat<axis=1>(d, e) y = Conv(k, u)
    }"""
    found = regions(build, text, opset=18, w=normal(4, 4, 1, 1), v=normal(2, 2, 1, 1), u=normal(4, 4, 1, 1))
    assert len(found.kernels) == 4 and not found.skipped
    values = {value.name: value for value in found.readers}
    assert found.range_owner(values["b"]) is found.range_owner(values["c"]) is values["a"]
    assert {part.name for part, whole in found.joined.items() if whole is values["k"]} == {"d", "e"}


def test_an_activation_behind_what_moves_values_cuts_off_before(build: Any, normal: Any) -> None:
    text = """g (float[N,4,6,6] x) => (float[N,4,3,3] y) {
        a = Conv(x, w) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a) r = Relu(p) y = Conv(r, v)
    }"""
    found = regions(build, text, w=normal(4, 4, 1, 1), v=normal(4, 4, 1, 1))
    values = {value.name: value for value in found.readers}
    assert "p" not in values and found.range_owner(values["a"]) is values["r"]


def test_nodes_that_the_runtime_computes_in_float_stay_out(build: Any, normal: Any) -> None:
    text = "g (float[N,4,6,6] x) => (float[N,4,6,6] y) { a = Conv(x, w) b = Conv(a, v) [sum] s = Add(a, b) y = Conv(s, u) }"
    model = compress.load(build(text, w=normal(4, 4, 1, 1), v=normal(4, 4, 1, 1), u=normal(4, 4, 1, 1)))
    whole, without = find(model.graph, lambda *names: True), find(model.graph, lambda *names: True, ["sum"])
    assert {node.name for node in whole.nodes} - {node.name for node in without.nodes} == {"sum"}
