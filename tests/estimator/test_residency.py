"""Which tensors stay on the chip."""

from __future__ import annotations

from compress.estimator import load
from compress.estimator.hardware import Number, Profile
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


def test_activations_stay_if_those_alive_together_fit() -> None:
    both = homes(LAYERS, _chip(frozenset(("activations",)), 200), frozenset(("y",)))
    assert both == {"a": 1, "b": 1}
    assert homes(LAYERS, _chip(frozenset(("activations",)), 199), frozenset(("y",))) == {"a": 1}


def test_what_the_graph_returns_leaves_the_chip() -> None:
    assert homes(LAYERS, _chip(frozenset(("activations",)), 1e6), frozenset(("a", "y"))) == {"b": 1}


def test_weights_stay_all_or_none() -> None:
    kept = homes(LAYERS, _chip(frozenset(("weights",)), 120), frozenset(("y",)))
    assert kept == {"v": 1, "w": 1, "u": 1}
    assert homes(LAYERS, _chip(frozenset(("weights",)), 119), frozenset(("y",))) == {}
