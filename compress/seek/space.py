"""What can be decided about a model: bits of weights, codes of values, arithmetic, channels of groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from compress.cpu import weight_bits
from compress.estimator.hardware import Number, Profile
from compress.graph.layers import Layer, layers
from compress.prune.channels import number_kept
from compress.prune.coupling import Group
from compress.quantize import regions
from compress.seek.problem import Assignment, Decision, Link

Plan: TypeAlias = dict[str, Any]
"""Settings of the pass ``per-layer``."""
FLOAT = 32.0
"""Bits of a weight that stays as it is."""
WIDTHS = (float(weight_bits("auto")), 4.0)
"""Bits that weights may have besides. 7 stand for 8 where this processor would saturate, so that what is
measured here is what another one computes."""
SHARES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)
"""Shares of its channels that a group may keep."""
SMALLEST = 8
"""Channels below which a group keeps all."""


@dataclass(frozen=True)
class Space:
    """The decisions about a folded and prepared model, and what each touches.

    Attributes:
        decisions: all of them; each layer's weights, each group of values, each layer's arithmetic, each
            group of channels.
        links: which choices exclude each other.
        weights: number of the decision about a weight, by its name.
        values: number of the decision about the codes of a value, by its name.
        groups: the groups of channels, by the number of the decision.
    """

    decisions: tuple[Decision, ...]
    links: tuple[Link, ...]
    weights: Mapping[str, int]
    values: Mapping[str, int]
    groups: Mapping[int, Group]

    def plan(self, chosen: Assignment) -> Plan:
        """Return an assignment as settings of the pass ``per-layer``; what stays as it is is left out."""
        plan: Plan = {}
        found: dict[str, dict[str, float]] = {}
        for decision, option in zip(self.decisions, chosen, strict=True):
            found.setdefault(decision.kind, {})[decision.name] = decision.options[option]
        channels = {name: share for name, share in found.get("channels", {}).items() if share < 1}
        bits = {name: int(width) for name, width in found.get("weights", {}).items() if width < FLOAT}
        integers = [name for name, on in found.get("arithmetic", {}).items() if on]
        if channels:
            plan["channels"] = channels
        if bits:
            plan["weights"] = bits
        if integers:
            plan["activations"] = integers
        return plan

    @cached_property
    def by_kind(self) -> Mapping[str, list[int]]:
        """Numbers of the decisions of every kind."""
        found: dict[str, list[int]] = {}
        for number, decision in enumerate(self.decisions):
            found.setdefault(decision.kind, []).append(number)
        return found


def find(
    graph: ir.Graph,
    chosen: Callable[..., bool],
    profile: Profile,
    groups: Mapping[str, Group],
    choices: Collection[str],
    quantities: Collection[str],
) -> Space:
    """Return what can be decided.

    Args:
        graph: a folded and prepared graph.
        chosen: called with the names of a layer's node and weight.
        profile: the hardware; where it runs no floats, layers must become integers.
        groups: groups of channels that may be pruned, by name.
        choices: what may be decided: bits, channels.
        quantities: what is minimised or limited.
    """
    builder = _Builder(
        runs_floats=profile.runs_in(Number("float", 32)) is not None,
        packs="file" in quantities or {"int4"} <= {*profile.arithmetic, *profile.decodes},
    )
    if "bits" in choices:
        around = regions.find(graph, chosen)
        builder.add_layers(layer for layer in layers(graph) if chosen(*layer.names))
        builder.add_values(regions.sides(around), [layer.name for layer in around.kernels])
    if "channels" in choices:
        builder.add_groups(groups)
    return builder.space()


class _Builder:
    def __init__(self, runs_floats: bool, packs: bool) -> None:
        self._runs_floats = runs_floats
        self._widths = WIDTHS if packs else WIDTHS[:1]
        self._decisions: list[Decision] = []
        self._links: list[Link] = []
        self._weights: dict[str, int] = {}
        self._values: dict[str, int] = {}
        self._groups: dict[int, Group] = {}
        self._layers: dict[str, int] = {}

    def _add(self, decision: Decision) -> int:
        self._decisions.append(decision)
        return len(self._decisions) - 1

    def add_layers(self, found: Iterable[Layer]) -> None:
        """Decide about the bits of layers; those that share a weight are decided together."""
        for layer in found:
            if not layer.is_finite:
                continue
            name = layer.weight.name or ""
            known = self._weights.get(name, self._layers.get(layer.name))
            if known is None:
                known = self._add(Decision("weights", layer.name, self._options(layer)))
            self._weights[name] = self._layers[layer.name] = known

    def _options(self, layer: Layer) -> tuple[float, ...]:
        product = layer.in_axis is not None and layer.operator.cost in ("product", "convolution")
        fewer = self._widths if product else WIDTHS[:1]
        return fewer if product and not self._runs_floats else (FLOAT, *fewer)

    def add_values(self, sides: Mapping[ir.Value, frozenset[str]], kernels: Sequence[str]) -> None:
        """Decide about arithmetic and codes.

        A layer that multiplies integers has integer weights, and codes on all its sides; values have codes
        if a layer beside them multiplies integers.
        """
        options = (0.0, 1.0) if self._runs_floats else (1.0,)
        on = len(options) - 1
        arithmetic = {
            name: self._add(Decision("arithmetic", name, options)) for name in kernels if name in self._layers
        }
        groups: dict[frozenset[str], list[str]] = {}
        for value, names in sides.items():
            known = frozenset(names & arithmetic.keys())
            if known:
                groups.setdefault(known, []).append(value.name or "")
        for names, values in groups.items():
            codes = self._add(Decision("codes", values[0], options))
            self._values |= dict.fromkeys(values, codes)
            if not on:
                continue
            for name in names:
                self._links.append(Link(((arithmetic[name], on, 1.0), (codes, on, -1.0)), 0.0))
            some = tuple((arithmetic[name], on, -1.0) for name in sorted(names))
            self._links.append(Link(((codes, on, 1.0), *some), 0.0))
        for name, number in arithmetic.items() if on else ():
            floats = self._decisions[self._layers[name]].options.index(FLOAT)
            self._links.append(Link(((number, on, 1.0), (self._layers[name], floats, 1.0)), 1.0))

    def add_groups(self, groups: Mapping[str, Group]) -> None:
        """Decide about how many channels groups keep."""
        for name, group in groups.items():
            if group.size >= SMALLEST:
                counts = {number_kept(group.size, 1 - share): share for share in reversed(SHARES)}
                self._groups[
                    self._add(Decision("channels", name, tuple(sorted(counts.values(), reverse=True))))
                ] = group

    def space(self) -> Space:
        return Space(tuple(self._decisions), tuple(self._links), self._weights, self._values, self._groups)


def kept(group: Group, share: float) -> np.ndarray:
    """Return a mask of the first channels, as many as a group keeps at a share."""
    return np.arange(group.size) < number_kept(group.size, 1 - share)
