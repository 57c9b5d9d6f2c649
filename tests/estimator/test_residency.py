"""How much of each tensor stays on the chip, and that no size is a cliff."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.estimator import Cost, ids, load
from compress.estimator.cost import cost, utilization
from compress.estimator.hardware import Number, Profile, parse_number
from compress.estimator.mapping import Loops
from compress.estimator.residency import SHARE, homes
from compress.estimator.workload import LayerWork, Operand


def _chip(keeps: frozenset[str], room: float) -> Profile:
    """Return a profile whose second memory keeps what is asked for, and has room for `room` bytes of it."""
    profile = load("cpu-arm")
    outside, buffer, *inner = profile.memories
    size = buffer.capacity_bytes.model_copy(update={"value": room / SHARE})  # type: ignore[union-attr]
    inner = [memory.model_copy(update={"keeps": frozenset()}) for memory in inner]
    changed = buffer.model_copy(update={"keeps": keeps, "capacity_bytes": size})
    outside = outside.model_copy(update={"keeps": frozenset()})
    return profile.model_copy(update={"memories": (outside, changed, *inner)})


def _layer(reads: str, writes: str, weight: str) -> LayerWork:
    operands = (
        Operand(reads, 25, 100.0),
        Operand(weight, 10, 40.0, is_weight=True),
        Operand(writes, 25, 100.0),
    )
    return LayerWork(writes, "Relu", Number("float", 32), streamed=operands, produces=writes)


LAYERS = [_layer("x", "a", "v"), _layer("a", "b", "w"), _layer("b", "y", "u")]


def _inside(profile: Profile, outputs: tuple[str, ...] = ("y",)) -> dict[str, float]:
    """Return which part of each tensor is in the second memory, where that is any."""
    found = homes(LAYERS, profile, frozenset(outputs))
    assert all(sum(parts) == pytest.approx(1) for parts in found.values())
    return {name: parts[1] for name, parts in found.items() if parts[1]}


def test_activations_stay_as_far_as_those_alive_together_fit() -> None:
    assert _inside(_chip(frozenset(("activations",)), 400)) == pytest.approx({"a": 1, "b": 1}, abs=1e-3)
    half = _inside(_chip(frozenset(("activations",)), 150))
    assert half == pytest.approx({"a": 1, "b": 0.5}, abs=0.03)


def test_what_the_graph_returns_leaves_the_chip() -> None:
    assert _inside(_chip(frozenset(("activations",)), 1e6), ("a", "y")) == {"b": pytest.approx(1)}


@pytest.mark.parametrize("room", [60, 110, 120, 130, 240])
def test_the_part_of_the_weights_that_fits_stays(room: float) -> None:
    found = _inside(_chip(frozenset(("weights",)), room))
    assert found == dict.fromkeys("vwu", pytest.approx(min(1, room / 120), abs=0.06))


def _chain(n: int, c: int, m: int, k: int, size: int, kernel: int, bits: int, kind: Any) -> list[LayerWork]:
    """Two convolutions, one behind the other; the second one is pointwise."""
    layers = []
    for reads, writes, inputs, outputs, window in (("x", "h", c, m, kernel), ("h", "y", m, k, 1)):
        loops = Loops(
            n=n,
            m=outputs,
            c=inputs,
            out=(size, size),
            kernel=(window, window),
            padding=(window - 1, window - 1),
        )
        stored = [
            Operand(name, count, count * bits / 8, name == f"w{writes}", bits=bits, is_integer=kind == "int")
            for name, count in zip((reads, f"w{writes}", writes), loops.elements, strict=True)
        ]
        layers.append(LayerWork(writes, "Conv", Number(kind, bits), loops, *stored, produces=writes))
    return layers


def _joules(profile: Profile, **sizes: int) -> float:
    number = parse_number(next(iter(profile.arithmetic)))
    layers = _chain(**sizes, bits=number.bits, kind=number.kind)
    places = homes(layers, profile, frozenset(("y",)))
    return sum((cost(layer, profile, places)[0] for layer in layers), Cost()).energy_joules


PADDED = ("edge-tpu", "tpu-v1", "tpu-v4i")
"""The exception: for a channel more than its columns or rows a weight-stationary array takes one more pass,
padded with zeros. It takes the time of a full one on the chip, too, so compilers for it pad channels."""


def _padding(profile: Profile, smaller: dict[str, int], larger: dict[str, int]) -> float:
    """Return the factor by which a layer keeps less of such an array busy once it has grown."""
    array = profile.array
    if profile.id not in PADDED or array is None:
        return 1.0
    busy = [
        [utilization(array, layer.loops) for layer in _chain(**sizes, bits=8, kind="int") if layer.loops]
        for sizes in (smaller, larger)
    ]
    return max(1.0, *(before / after for before, after in zip(*busy, strict=True)))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(ids()),
    st.fixed_dictionaries({name: st.integers(96, 1024) for name in "cmk"}),
    st.sampled_from([(1, 1), (1, 3), (7, 3), (14, 1), (14, 3), (28, 3)]),
    st.sampled_from("cmk"),
    st.sampled_from([1, 16]),
    st.booleans(),
)
def test_one_channel_more_is_a_small_step(
    hardware: str, channels: dict[str, int], plane: tuple[int, int], grown: str, n: int, whole: bool
) -> None:
    profile = load(hardware)
    sizes = {"n": n, "size": plane[0], "kernel": plane[1], **channels}
    if whole:  # what fills an array exactly
        sizes[grown] = max(sizes[grown] // 256, 1) * 256
    larger = {**sizes, grown: sizes[grown] + 1}
    step = _joules(profile, **larger) / _joules(profile, **sizes)
    assert 0.95 <= step <= 1.05 * _padding(profile, sizes, larger)


def test_a_column_more_than_an_array_has_is_a_pass_more() -> None:
    profile = load("tpu-v1")
    sizes = {"n": 16, "c": 1024, "k": 64, "size": 28, "kernel": 3}
    step = _joules(profile, m=257, **sizes) / _joules(profile, m=256, **sizes)
    assert 1.4 < step < 2


def test_memory_does_not_break_at_its_room() -> None:
    profile = load("edge-tpu").model_copy(update={"array": None})
    joules = [_joules(profile, n=1, c=c, m=1024, k=1024, size=1, kernel=3) for c in range(200, 480)]
    steps = [after / before for before, after in itertools.pairwise(joules)]
    assert joules[-1] > 20 * joules[0]  # from one that stays on the chip to one that does not
    assert min(steps) >= 1
    assert max(steps) < 1.06
