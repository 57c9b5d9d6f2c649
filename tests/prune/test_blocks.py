"""Residual blocks: which branches are blocks, and that a dropped one is one that adds zero."""

import numpy as np
import pytest

import compress
from compress.graph.shapes import describe
from compress.prune.blocks import Gated, drop, residual_blocks

THREE = """{
  [a1] h1 = MatMul(x, w1)  r1 = Relu(h1)  [b1] o1 = MatMul(r1, v1)  x1 = Add(x, o1)
  [a2] h2 = MatMul(x1, w2)  r2 = Relu(h2)  [b2] o2 = MatMul(r2, v2)  x2 = Add(o2, x1)
  [a3] h3 = MatMul(x2, w3)  r3 = Relu(h3)  [b3] o3 = MatMul(r3, v3)  y = Add(x2, o3)
}"""


@pytest.fixture
def make(build, normal):
    """A function from a graph's body to a model; its square weights are normal."""

    def made(body, size=6, **weights):
        names = {word for word in ("w1", "v1", "w2", "v2", "w3", "v3") if f"{word})" in body}
        weights = {name: normal(size, size) / 4 for name in names} | weights
        proto = build(f"net (float[N,{size}] x) => (float[N,{size}] y) {body}", **weights)
        return compress.load(proto, calibration=[normal(16, size) for _ in range(3)])

    return made


def blocks(model):
    return residual_blocks(model.graph, describe(model.ir, {"x": (16, 6)}))


def test_a_dropped_block_is_one_that_adds_zero(make):
    model = make(THREE)
    feeds = next(model.batches())
    for number in range(3):
        smaller = model.copy()
        drop(smaller.ir, [blocks(smaller)[number]])
        closed = Gated(model.ir, describe(model.ir, {"x": (16, 6)})).outputs(feeds, [number])
        np.testing.assert_allclose(smaller.run(feeds)[0], closed[0], rtol=1e-5, atol=1e-6)
        assert [value.name for value in smaller.graph.outputs] == ["y"]
        assert smaller.weight_bytes == model.weight_bytes * 2 / 3


def test_a_branch_that_is_wider_than_the_stream_is_no_block(make):
    body = "{{ m = ReduceMean<keepdims=1>({0}, one)  h = MatMul(x, w1)  y = Add(m, h) }}"
    assert blocks(make(body.format("x"), one=np.array([1]))) == []


def test_blocks_of_a_transformer_and_of_a_convolutional_network(transformer, digits):
    for model, expected in ((transformer, [4, 2]), (digits, [2])):
        shapes = {name: array.shape for name, array in next(model.batches()).items()}
        found = residual_blocks(model.graph, describe(model.ir, shapes))
        assert [len(block.layers) for block in found] == expected


def test_the_effect_of_closing_a_block_is_the_relative_error_of_the_outputs(make):
    model = make(THREE)
    feeds = next(model.batches())
    gated = Gated(model.ir, describe(model.ir, {"x": (16, 6)}))
    effect = gated.effects([feeds])
    assert effect([]) == 0
    (want,), (got,) = gated.outputs(feeds, []), gated.outputs(feeds, [1])
    assert effect([1]) == pytest.approx(np.linalg.norm(got - want) / np.linalg.norm(want), rel=1e-5)
