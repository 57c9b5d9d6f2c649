"""Several devices: what is computed stays, what crosses the links follows the ring's formula."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import transformer

from compress.errors import HardwareError
from compress.estimator import estimate, load
from compress.estimator.parallel import estimate_parallel, shard, stages
from compress.estimator.scoring import read_workload

LAYER = transformer.bert_layer("float16")
RESULT_BYTES = transformer.SAMPLES * transformer.TOKENS * transformer.WIDTH * 2


def test_a_transformer_block_needs_two_all_reduces() -> None:
    layers, reduced, gathered = shard(read_workload(LAYER, load("h200")).layers, 4)
    assert reduced == 2 * RESULT_BYTES
    assert gathered == 0
    whole = estimate(LAYER, "h200").total.macs
    assert sum(layer.macs for layer in layers) == whole / 4


def test_ring_bytes() -> None:
    found = estimate_parallel(LAYER, "h200", 4, "tensor")
    assert found.link_bytes == pytest.approx(4 * 2 * 3 / 4 * 2 * RESULT_BYTES)
    assert found.total.energy["link"] > 0
    assert found.total.macs == estimate(LAYER, "h200").total.macs


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_activation_bits_count_on_the_links(kind: str) -> None:
    chain = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21]>
        g ({kind}[8, 64] x, {kind}[64, 64] a, {kind}[64, 64] b) => ({kind}[8, 64] y) {{
            h = MatMul(x, a)
            r = Relu(h)
            y = MatMul(r, b)
        }}"""
    )
    assert estimate_parallel(chain, "h200", 2, "pipeline").link_bytes == 8 * 64 * 2  # as fp16


def test_data_parallel_is_free_of_links() -> None:
    one = estimate(LAYER, "h200").total
    found = estimate_parallel(LAYER, "h200", 8, "data")
    assert (found.link_bytes, found.total.energy_joules) == (0, pytest.approx(one.energy_joules))
    assert found.seconds_between == pytest.approx(one.seconds / 8)


def test_a_pipeline_waits_less_with_more_in_flight() -> None:
    few, many = (estimate_parallel(LAYER, "h200", 2, "pipeline", microbatches=n) for n in (1, 16))
    assert many.total.energy["static"] < few.total.energy["static"]
    assert many.seconds_between < few.seconds_between
    assert many.bubble_seconds == few.bubble_seconds > 0


def test_stages_are_balanced() -> None:
    assert stages([1, 1, 1, 3, 1, 1], 3) == [(0, 3), (3, 4), (4, 6)]
    assert stages([5, 1], 4) == [(0, 1), (1, 2)]


def test_what_cannot_be_done() -> None:
    with pytest.raises(HardwareError, match="no link"):
        estimate_parallel(LAYER, "eyeriss-v1", 2, "tensor")
    with pytest.raises(HardwareError, match="at least 1"):
        estimate_parallel(LAYER, "h200", 0, "data")
