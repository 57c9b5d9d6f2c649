"""The cost of a graph, node by node, in the units that a pruning target may have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal, TypeAlias

from compress.estimator import Profile, estimate, load
from compress.estimator.hardware import Number
from compress.estimator.workload import WorkloadReader
from compress.graph.shapes import lay_out
from compress.model import Model

Unit: TypeAlias = Literal["macs", "weight-bytes", "energy"]
"""Multiply-accumulates of one run, bytes of all weights as stored, or joules of one run."""


def prices(
    model: Model, unit: Unit, hardware: str, shapes: Mapping[str, tuple[int, ...]]
) -> Mapping[str, float]:
    """Return the costs of the nodes of a model by name; nodes without a cost may be missing.

    A weight that several nodes read counts for the first one. Nodes that a profile fuses count as one.

    Args:
        model: the model.
        unit: the unit.
        hardware: the profile that prices energy.
        shapes: input shapes by name, for macs and energy.

    Raises:
        ModelError: the shapes of the graph cannot be inferred.
        HardwareError: there is no such profile.
    """
    found: defaultdict[str, float] = defaultdict(float)
    if unit == "weight-bytes":
        for graph in model.ir.graphs():
            for value in graph.initializers.values():
                if value.const_value is not None:
                    reader = next(iter(value.consumers()), None)
                    found[(reader and reader.name) or ""] += value.const_value.nbytes
    elif unit == "energy":
        for cost in estimate(model, _quantizing(load(hardware)), shapes=shapes).layers:
            found[cost.name] += cost.cost.energy_joules
    else:
        for layer in WorkloadReader(model.ir, lay_out(model.ir, shapes)).layers():
            found[layer.name] += layer.macs
    return found


def _quantizing(profile: Profile) -> Profile:
    """Return the profile; where it runs no floats, one that takes them as the integers they are to become."""
    if profile.runs_in(Number("float", 32)) is not None:
        return profile
    return profile.model_copy(update={"floats_as": profile.runs_in(Number("int", 8))})


def price(model: Model, unit: Unit, hardware: str, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Return the cost of the whole model; see `prices`."""
    return sum(prices(model, unit, hardware, shapes).values())
