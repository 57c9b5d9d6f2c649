"""Time and energy of one layer."""

from __future__ import annotations

import decoder
import onnx_ir as ir
import pytest

from compress.errors import ModelError
from compress.estimator import Profile, estimate, estimate_generation, load
from compress.estimator.hardware import Quantity
from compress.estimator.mapping import Loops

CONVOLUTION = """<ir_version: 10, opset_import: ["": 21]>
g (float16[1, {channels}, {size}, {size}] x, float16[64, {channels}, 3, 3] w) => (float16[1, 64, h, h] y)
{{ y = Conv <pads = [1, 1, 1, 1]> (x, w) }}"""
SPIKES = """<ir_version: 10, opset_import: ["": 21]>
g (float[1, 64] x, float[64, 64] w) => (float[1, 64] y) { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, w) }"""
GPU = load("h100")


def quantity(value: float) -> Quantity:
    return Quantity(value=value, tag="assumed", scope="chip", source="project")


def test_a_processor_has_a_kernel_for_each_kind_of_layer() -> None:
    assert Loops(m=64, c=64).kernel_kind == "dense"
    assert Loops(m=64, c=64, out=(1, 49)).kernel_kind == "pointwise"
    assert Loops(m=64, c=3, out=(8, 8), kernel=(3, 3)).kernel_kind == "convolution"
    assert Loops(groups=2, m=32, c=32, out=(8, 8), kernel=(3, 3)).kernel_kind == "convolution"
    assert Loops(groups=64, out=(8, 8), kernel=(3, 3)).kernel_kind == "depthwise"


def seconds(channels: int, size: int) -> float:
    model = ir.from_onnx_text(CONVOLUTION.format(channels=channels, size=size))
    free = load("eyeriss-v1").model_copy(update={"memories": tuple(_instant(load("eyeriss-v1")))})
    return estimate(model, free).total.seconds


def _instant(profile: Profile) -> list[object]:
    return [memory.model_copy(update={"bytes_per_second": None}) for memory in profile.memories]


def test_partial_sums_limit_an_array_where_maps_are_wide() -> None:
    # The same multiply-accumulates: on narrow maps eight channels are summed inside the array.
    assert seconds(16, 112) > 2 * seconds(16 * 64, 14)
    # Each channel more sends the sums of wide maps out once more and takes them in again.
    assert seconds(32, 112) / seconds(16, 112) == pytest.approx(63 / 31, rel=0.01)


def test_starting_a_layer_takes_time_and_power() -> None:
    model = ir.from_onnx_text(SPIKES)
    slow = GPU.model_copy(update={"start_seconds": quantity(1.0)})
    found = estimate(model, slow)
    assert found.total.seconds == pytest.approx(len(found.layers), rel=1e-3)
    assert GPU.leakage_watts is not None
    assert found.total.energy_joules == pytest.approx(GPU.leakage_watts.value * len(found.layers), rel=1e-3)


def test_a_time_step_costs_whatever_fires() -> None:
    silent, busy = (estimate(ir.from_onnx_text(SPIKES), "loihi1", zeros={"x": z, "r": z}) for z in (1.0, 0.0))
    *_, steps = silent.layers
    assert steps.name == "time steps"
    assert 0 < steps.cost.energy_joules <= silent.total.energy_joules < busy.total.energy_joules


def test_attention_over_a_cache_reads_slower_than_weights_do() -> None:
    model = decoder.block("Llama-3.1-8B-Instruct")
    even = GPU.model_copy(update={"attention_efficiency": None})
    costs = [
        estimate(model, profile, shapes={"batch": 8, "sequence": 1, "past": 400}) for profile in (even, GPU)
    ]
    pairs = zip(*(found.layers for found in costs), strict=True)
    ratios = {
        one.name: other.cost.energy["dram"] / one.cost.energy["dram"] for one, other in pairs if one.cost.macs
    }
    assert GPU.attention_efficiency is not None
    assert ratios.pop("a/scores") == pytest.approx(1 / GPU.attention_efficiency.value)
    assert ratios.pop("a/values") == pytest.approx(1 / GPU.attention_efficiency.value)
    assert set(ratios.values()) == {1.0}


def test_a_token_costs_less_in_a_batch_and_more_on_two_devices() -> None:
    model = decoder.block("gemma-3-12b-it")

    def joules(batch: int, devices: int = 1) -> float:
        found = estimate_generation(model, GPU, prompt=200, tokens=100, batch=batch, devices=devices)
        return found.token.energy_joules / batch

    assert joules(1) > 3 * joules(8) > 3 * joules(64)
    assert joules(8) < joules(8, devices=2) < 1.5 * joules(8)


def test_a_batch_needs_an_open_dimension() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (float16[1, sequence, 64] x, float16[1, 1, past, 64] past_k) => (float16[1, 1, sequence, past] y)
    { k = Transpose <perm = [0, 1, 3, 2]> (past_k)  y = MatMul(x, k) }"""
    with pytest.raises(ModelError, match="open dimension for the batch"):
        estimate_generation(ir.from_onnx_text(text), GPU, prompt=4, tokens=1, batch=2)
