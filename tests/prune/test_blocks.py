"""Residual blocks: which branches are blocks, and that a dropped one is one that adds zero."""

import numpy as np
import pytest

from compress.graph.shapes import describe
from compress.passes import DropBlocks
from compress.prune.blocks import Gated, drop, residual_blocks


def blocks(model):
    return residual_blocks(model.graph, describe(model.ir, {"x": (16, 6)}))


def test_a_dropped_block_is_one_that_adds_zero(residual):
    model = residual()
    feeds = next(model.batches())
    for number in range(3):
        smaller = model.copy()
        drop(smaller.ir, [blocks(smaller)[number]])
        closed = Gated(model.ir, describe(model.ir, {"x": (16, 6)})).outputs(feeds, [number])
        np.testing.assert_allclose(smaller.run(feeds)[0], closed[0], rtol=1e-5, atol=1e-6)
        assert [value.name for value in smaller.graph.outputs] == ["y"]
        assert smaller.weight_bytes == model.weight_bytes * 2 / 3


def test_blocks_of_a_sum_are_dropped_one_by_one_or_together(residual):
    model = residual(
        "{ [a] h = MatMul(x, w1)  r = Relu(h)  [b] i = MatMul(x, w2)  s = Relu(i)  y = Sum(r, x, s) }"
    )
    feeds = next(model.batches())
    gated = Gated(model.ir, describe(model.ir, {"x": (16, 6)}))
    assert [block.name for block in blocks(model)] == ["b", "a"]
    for numbers in ([0], [1], [0, 1]):
        smaller = model.copy()
        found = blocks(smaller)
        drop(smaller.ir, [found[number] for number in numbers])
        np.testing.assert_allclose(smaller.run(feeds)[0], gated.outputs(feeds, numbers)[0], rtol=1e-5)
        assert smaller.weight_bytes == model.weight_bytes * (2 - len(numbers)) / 2
    assert sum(bool(change.action) for change in DropBlocks(ratio=0.9)(model).changes) == 1


def test_a_branch_that_is_wider_than_the_stream_is_no_block(residual):
    body = "{{ m = ReduceMean<keepdims=1>({0}, one)  h = MatMul(x, w1)  y = Add(m, h) }}"
    assert blocks(residual(body.format("x"), one=np.array([1]))) == []


def test_blocks_of_a_transformer_and_of_a_convolutional_network(transformer, digits):
    for model, expected in ((transformer, [4, 2]), (digits, [2])):
        shapes = {name: array.shape for name, array in next(model.batches()).items()}
        found = residual_blocks(model.graph, describe(model.ir, shapes))
        assert [len(block.layers) for block in found] == expected


def test_the_effect_of_closing_a_block_is_the_relative_error_of_the_outputs(residual):
    model = residual()
    feeds = next(model.batches())
    gated = Gated(model.ir, describe(model.ir, {"x": (16, 6)}))
    effect = gated.effects([feeds])
    assert effect([]) == 0
    (want,), (got,) = gated.outputs(feeds, []), gated.outputs(feeds, [1])
    assert effect([1]) == pytest.approx(np.linalg.norm(got - want) / np.linalg.norm(want), rel=1e-5)
