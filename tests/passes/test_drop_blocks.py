"""drop-blocks: which branches are blocks, which go, and why the others stay."""

import numpy as np
import onnx_ir as ir
import pytest

from compress.errors import DataError, LimitError
from compress.graph.shapes import describe
from compress.passes.drop_blocks import DropBlocks
from compress.prune.blocks import residual_blocks


def blocks(model):
    return residual_blocks(model.graph, describe(model.ir, {"x": (16, 6)}))


def names(found):
    return [[layer.name for layer in block.layers] for block in found]


def test_the_block_that_does_least_goes(residual):
    model = residual()
    for name in ("v1", "v3"):
        value = model.graph.initializers[name]
        value.const_value = ir.tensor(value.const_value.numpy() * 1e-2, name=name)
    result = DropBlocks(ratio=0.7)(model)
    gone = [change for change in result.changes if change.action]
    assert {change.layer for change in gone} == {"a1", "a3"}
    assert sum(change.bytes_before for change in gone) == model.weight_bytes - result.weight_bytes
    (kept,) = (change for change in result.changes if change.skipped)
    assert kept.layer == "a2"
    assert "dropping it would change the outputs by" in kept.skipped
    assert len(list(model.graph)) == 12


def test_two_blocks_that_cancel_each_other_go_together(residual, normal):
    """Each alone matters most; greedily, the second costs nothing once the first is gone."""
    twice, once = 3 * normal(6, 6), 0.2 * normal(6, 6)
    body = """{
      [a] o1 = MatMul(x, w1)  x1 = Add(x, o1)  [b] o2 = MatMul(x, w2)  x2 = Add(x1, o2)
      [c] o3 = MatMul(x, w3)  x3 = Add(x2, o3)  y = Relu(x3)
    }"""
    model = residual(body, w1=twice, w2=-twice, w3=once)
    assert names(blocks(model)) == [["a"], ["b"], ["c"]]
    wanted = model.run(next(model.batches()))[0]

    def error(**settings):
        result = DropBlocks(ratio=0.99, of="blocks", exclude=("c",), **settings)(model)
        return np.abs(result.run(next(model.batches()))[0] - wanted).max(), result

    off, result = error()
    assert off < 1e-3
    assert [change.layer for change in result.changes if change.action] == ["a", "b"]


def test_what_is_no_block_stays(residual):
    gelu = """{
      c = Mul(x, x)  d = Mul(c, x)  e = Mul(d, f)  g = Add(x, e)  t = Tanh(g)
      [a] h = MatMul(t, w1)  [b] k = MatMul(t, w2)  s = Add(h, k)  [last] y = Add(s, bias)
    }"""
    model = residual(gelu, f=np.float32(0.04), bias=np.ones(6, np.float32))
    assert blocks(model) == []
    result = DropBlocks()(model)
    assert "there is no residual block" in result.changes[-1].skipped


def test_a_block_within_a_block_goes_with_it(residual):
    nested = """{
      [a] h = MatMul(x, w1)  [b] i = MatMul(h, w2)  j = Add(h, i)  [c] k = MatMul(j, w3)  z = Add(x, k)
      y = Relu(z)
    }"""
    model = residual(nested)
    assert names(blocks(model)) == [["b"], ["a", "b", "c"]]
    result = DropBlocks(ratio=0.99, of="macs")(model)
    assert result.weight_bytes == 0


def test_a_share_of_the_cost(residual):
    model = residual()
    assert DropBlocks(ratio=0.3, of="macs")(model).weight_bytes == model.weight_bytes * 2 / 3
    assert (
        DropBlocks(ratio=0.5, of="weight-bytes", greedy=False)(model).weight_bytes == model.weight_bytes / 3
    )
    assert DropBlocks(ratio=0.1, of="energy", hardware="eyeriss-v1")(model).weight_bytes < model.weight_bytes
    with pytest.raises(LimitError, match="all blocks together are less than 90% of the macs"):
        DropBlocks(ratio=0.9, of="macs", include=("a1",))(model)


def test_it_needs_calibration_data(residual):
    model = residual()
    model.calibration = None
    with pytest.raises(DataError, match="calibration data"):
        DropBlocks()(model)
