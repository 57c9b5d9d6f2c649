"""What layers cost, exactly, by their own options and those of what they read and write.

A change of cost is never added to another one: a product runs in integers only if both its operands are, and
a layer's work is a product of its channels in and out. So every fused layer has a table over all decisions
that touch it, and the sum of the tables is what the estimator says of the whole network, as long as tensors
stay where they were.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from compress.estimator.cost import Clock, cost
from compress.estimator.deployment import Deployment
from compress.estimator.fusion import fuse
from compress.estimator.hardware import Number, Profile
from compress.estimator.kernels import of_this_machine
from compress.estimator.residency import Homes, homes, peak
from compress.estimator.workload import LayerWork, Operand, WorkloadReader
from compress.graph import facts
from compress.graph.fold import fold
from compress.graph.shapes import lay_out
from compress.model import Model
from compress.prune.coupling import Coupling
from compress.quantize import regions
from compress.seek.problem import Assignment, Cell, Decision, Kind, Table
from compress.seek.space import FLOAT, Space, kept

SCALE_BYTES = 4
"""Bytes of the scale of one output channel."""
LARGEST = 4096
"""Entries of a table; a layer that more decisions touch is added up from single changes."""
QUANTITIES = ("energy", "seconds", "dram_bytes", "macs", "flash", "file")
"""What tables hold: joules, seconds, bytes, operations, and bytes of weights as deployed and as stored."""
PRECEDENCE: tuple[Kind, ...] = ("channels", "weights", "codes")
"""Which decisions go first into the table of a layer that very many touch."""
Options: TypeAlias = tuple[tuple[int, int], ...]
"""Numbers of decisions with those of their options."""


class Tables:
    """The layers of a model on some hardware, under any assignment.

    Args:
        model: the model as passes are given it.
        profile: the hardware.
        space: what can be decided.
        coupling: the coupling groups of the model, where channels are decided about.
        shapes: sizes of the inputs by name.
    """

    def __init__(
        self,
        model: Model,
        profile: Profile,
        space: Space,
        coupling: Coupling | None,
        shapes: Mapping[str, Sequence[int]],
    ) -> None:
        self._model, self._profile, self._space = model, profile, space
        self._coupling, self._shapes = coupling, shapes
        self._read_at: dict[Options, list[LayerWork]] = {}
        self._whole = self._at({})
        touched = self._touched()
        self._joint = [self._jointly(mine) for mine in touched]
        self._single = [
            [number for number in mine if number not in joint]
            for mine, joint in zip(touched, self._joint, strict=True)
        ]
        names = ((o.name, place) for place, layer in enumerate(self._whole) for o in layer.operands)
        self._first = dict(reversed([*names]))

    def _read(self, options: Mapping[int, int]) -> list[LayerWork]:
        """Return the fused layers of the model with these options of groups of channels."""
        model = self._model.copy()
        if options and self._coupling is not None:
            groups, decisions = self._space.groups, self._space.decisions
            keep = {groups[d]: kept(groups[d], decisions[d].options[option]) for d, option in options.items()}
            self._coupling.removal(keep).apply(model.graph)
        fold(model.ir)
        regions.prepare(model, lambda *_: True)
        reader = WorkloadReader(model.ir, lay_out(model.ir, self._shapes, {}))
        outside = self._profile.host
        layers = [each for each in reader.layers() if facts.named(each.op_type).cost not in outside]
        self._outputs = frozenset(reader.operand(value).name for value in model.graph.outputs)
        return fuse(layers, self._profile.fuses, self._outputs)

    def _at(self, options: Mapping[int, int]) -> list[LayerWork]:
        """Return the fused layers with these options of groups of channels, each read once."""
        key = tuple(sorted((number, option) for number, option in options.items() if option))
        if key not in self._read_at:
            self._read_at[key] = self._read(dict(key))
        return self._read_at[key]

    def _touched(self) -> list[list[int]]:
        """Return the decisions that touch every layer."""
        space, fewest = self._space, {}
        for number in space.groups:
            fewest[number] = self._at({number: len(space.decisions[number].options) - 1})
        found = []
        for place, layer in enumerate(self._whole):
            names = [operand.name for operand in layer.operands]
            mine = {space.weights[name] for name in names if name in space.weights}
            mine |= {space.values[name] for name in names if name in space.values}
            mine |= {number for number, layers in fewest.items() if layers[place] != layer}
            found.append(sorted(mine))
        return found

    def _jointly(self, mine: Sequence[int]) -> tuple[int, ...]:
        """Return those decisions that fit in one table: groups of channels first, codes last."""
        decisions, size, joint = self._space.decisions, 1, list[int]()
        for number in sorted(mine, key=lambda each: PRECEDENCE.index(decisions[each].kind)):
            if size * len(decisions[number].options) <= LARGEST:
                size *= len(decisions[number].options)
                joint.append(number)
        return tuple(sorted(joint))

    @cached_property
    def _pruned(self) -> list[dict[tuple[int, ...], LayerWork]]:
        """Every layer by the options of the groups of channels that touch it jointly."""
        groups = [tuple(number for number in mine if number in self._space.groups) for mine in self._joint]
        found: list[dict[tuple[int, ...], LayerWork]] = [{} for _ in groups]
        for options in _covering(groups, self._space.decisions):
            for mine, known, layer in zip(groups, found, self._at(options), strict=True):
                known.setdefault(tuple(options.get(number, 0) for number in mine), layer)
        return found

    def layers(self, chosen: Assignment) -> list[LayerWork]:
        """Return the layers as they are stored under an assignment."""
        options = dict(enumerate(chosen))
        layers = self._at({number: chosen[number] for number in self._space.groups})
        return [_stored(layer, self._space, options) for layer in layers]

    def _deployed(self, layers: Sequence[LayerWork]) -> list[LayerWork]:
        return Deployment(self._profile).of(layers)

    def costs(self, chosen: Assignment) -> dict[str, float]:
        """Return the cost of the whole network under an assignment, its tensors where they then live."""
        stored = self.layers(chosen)
        deployed = self._deployed(stored)
        where = homes(deployed, self._profile, self._outputs)
        total = {**dict.fromkeys(QUANTITIES, 0.0), "ram": peak(deployed, self._outputs)[1]}
        for place, layer in enumerate(stored):
            for quantity, value in self._cost(place, layer, where).items():
                total[quantity] += value
        return total

    def _cost(self, place: int, stored: LayerWork, where: Homes) -> dict[str, float]:
        """Return what a layer costs; a weight that several read counts for the first one."""
        layer = self._deployed([stored])[0]
        timed = of_this_machine() if self._profile.kernels is not None else None
        found, _ = cost(
            layer, self._profile, where, Clock(timed.seconds(layer)) if timed is not None else None
        )

        def weights(one: LayerWork) -> float:
            mine = [each for each in one.operands if each.is_weight and self._first.get(each.name) == place]
            return math.fsum(each.bytes for each in mine)

        return {
            "energy": found.energy_joules,
            "seconds": found.seconds,
            "dram_bytes": found.dram_bytes,
            "macs": float(found.macs),
            "flash": weights(layer),
            "file": weights(stored),
        }

    def cells(self, at: Assignment) -> list[Cell]:
        """Return the tables of every layer, tensors living where they do under the assignment `at`."""
        where = homes(self._deployed(self.layers(at)), self._profile, self._outputs)
        return [cell for place in range(len(self._whole)) for cell in self._cells(place, at, where)]

    def _cells(self, place: int, at: Assignment, where: Homes) -> Iterator[Cell]:
        """Yield the table of a layer over what touches it jointly, and one over each other decision alone."""
        name, joint = self._whole[place].name, self._joint[place]
        groups = [number for number in joint if number in self._space.groups]
        known: dict[LayerWork, dict[str, float]] = {}

        def priced(layer: LayerWork, options: Mapping[int, int]) -> dict[str, float]:
            stored = _stored(layer, self._space, options)
            if stored not in known:
                known[stored] = self._cost(place, stored, where)
            return known[stored]

        others = {number: at[number] for number in self._single[place]}
        shape = tuple(len(self._space.decisions[number].options) for number in joint)
        entries = {}
        for entry in np.ndindex(shape):
            options = {**others, **dict(zip(joint, entry, strict=True))}
            entries[entry] = priced(self._pruned[place][tuple(options[n] for n in groups)], options)
        yield Cell(name, joint, _tables(shape, entries))
        base = dict(enumerate(at))
        for number in self._single[place]:
            changed = range(len(self._space.decisions[number].options))
            groups_at = {n: at[n] for n in self._space.groups}
            costs = [
                priced(
                    self._at({**groups_at, **({number: o} if number in groups_at else {})})[place],
                    {**base, number: o},
                )
                for o in changed
            ]
            less = [{q: each[q] - costs[at[number]][q] for q in QUANTITIES} for each in costs]
            yield Cell(name, (number,), _tables((len(costs),), {(o,): each for o, each in enumerate(less)}))


def _tables(
    shape: tuple[int, ...], entries: Mapping[tuple[int, ...], Mapping[str, float]]
) -> dict[str, Table]:
    """Return a table for every quantity."""
    tables = {quantity: np.zeros(shape) for quantity in QUANTITIES}
    for entry, costs in entries.items():
        for quantity in QUANTITIES:
            tables[quantity][entry] = costs[quantity]
    return tables


def _covering(groups: Sequence[tuple[int, ...]], decisions: Sequence[Decision]) -> Iterator[dict[int, int]]:
    """Yield options of groups of channels such that every layer meets all combinations of its own.

    Each time every layer that can be is given a combination that it has not met yet.
    """
    left = {
        mine: set(itertools.product(*(range(len(decisions[number].options)) for number in mine)))
        for mine in dict.fromkeys(groups)
    }
    while any(left.values()):
        options: dict[int, int] = {}
        for mine in sorted(left, key=lambda each: -len(left[each])):
            fitting = (
                combination
                for combination in sorted(left[mine])
                if all(
                    options.get(number, option) == option
                    for number, option in zip(mine, combination, strict=True)
                )
            )
            options |= dict(zip(mine, next(fitting, ()), strict=False))
        for mine, combinations in left.items():
            combinations.discard(tuple(options.get(number, 0) for number in mine))
        yield options


def _stored(layer: LayerWork, space: Space, options: Mapping[int, int]) -> LayerWork:
    """Return a layer with its operands in the formats that are chosen."""

    def changed(operand: Operand, channels: int) -> Operand:
        if operand.name in space.weights and operand.is_weight:
            number = space.weights[operand.name]
            bits = space.decisions[number].options[options[number]]
            return operand if bits >= FLOAT else _coded(operand, int(bits), channels * SCALE_BYTES)
        if operand.name in space.values:
            number = space.values[operand.name]
            return _coded(operand, 8, 0) if space.decisions[number].options[options[number]] else operand
        return operand

    channels = layer.loops.m * layer.loops.groups if layer.loops is not None else 0
    a, b = changed(layer.input, 0), changed(layer.weight, channels)
    multiplied = [each for each in (a, b) if each.elements]
    number = layer.number
    if layer.loops is not None and multiplied and all(each.is_integer for each in multiplied):
        number = Number("int", max(each.bits for each in multiplied))
    return replace(
        layer,
        number=number,
        input=a,
        weight=b,
        output=changed(layer.output, 0),
        streamed=tuple(changed(each, 0) for each in layer.streamed),
    )


def _coded(operand: Operand, bits: int, scales: int) -> Operand:
    stored = 8 if bits > 4 else 4
    size = operand.bytes * stored / operand.bits + scales
    return replace(operand, bits=stored, bytes=size, is_integer=True, encoded=operand.is_weight)
