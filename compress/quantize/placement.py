"""Which layers multiply integers: the fastest choice whose noise stays within what is allowed.

Every layer has its time in floats and in integers, and its rounded weights add noise at the outputs. So do
the codes of a value, which it has if a layer before or behind it multiplies integers; if not all of them
do, converting costs time. Noise adds up. The best choice is a small mixed-integer linear program.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper
from scipy import optimize, sparse

from compress.changes import Effect
from compress.diagnose.timing import processor_time
from compress.graph.session import session

SOLVE_SECONDS = 10.0
"""Time that the solver may take; then the best choice found so far counts."""
GAP = 0.005
"""How far from the bound, relative to it, a choice may be."""
ELEMENTS = 1 << 20
"""Size of the value whose conversion is timed."""
NO_FASTER = "integers are no faster there"
CONVERTED = "converting around it would cost what integers save"
TOO_NOISY = "its noise at the outputs is better spent elsewhere"


@dataclass(frozen=True, slots=True)
class Between:
    """Values that lie between the same layers, and have codes if one of these multiplies integers.

    Attributes:
        layers: their names.
        noise: noise power over signal power at the outputs that the codes add.
        seconds: what converting them costs if some of the layers multiply integers and others floats.
    """

    layers: frozenset[str]
    noise: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Table:
    """What is known of layers that can multiply integers.

    Attributes:
        noise: noise power over signal power at the outputs that each layer's rounded weights add, by name.
        floats: time of each layer in float arithmetic, of one run in floats.
        integers: the same if all layers multiply integers.
        between: the values between them.
    """

    noise: Mapping[str, float]
    floats: Mapping[str, float]
    integers: Mapping[str, float]
    between: Sequence[Between] = ()

    def time(self, integers: Collection[str]) -> float:
        """Return the time of a run with these layers in integers and the others in float."""
        chosen = set(integers)
        each = sum((self.integers if name in chosen else self.floats).get(name, 0) for name in self.noise)
        rest = self.floats.get("", 0)
        return (
            each
            + rest
            + sum(
                group.seconds for group in self.between if 0 < len(group.layers & chosen) < len(group.layers)
            )
        )

    def added(self, integers: Collection[str]) -> float:
        """Return the noise of a run with these layers in integers."""
        coded = (group.noise for group in self.between if not group.layers.isdisjoint(integers))
        return sum(self.noise[name] for name in integers) + sum(coded)

    def effects(self, integers: Collection[str]) -> dict[str, Effect]:
        """Return what it means for each layer that it multiplies integers, where those of `integers` do.

        A layer in float that integers would speed up was left there for its noise, if it would be in integers
        were noise of no account.
        """
        silent = [replace(group, noise=0.0) for group in self.between]
        regardless = replace(self, noise=dict.fromkeys(self.noise, 0.0), between=silent).fastest(1)
        found = {}
        for name in self.noise:
            noise = self.noise[name] + sum(group.noise for group in self.between if name in group.layers)
            timed = name in self.floats or name in self.integers
            before, after = self.floats.get(name, 0.0), self.integers.get(name, 0.0)
            why = TOO_NOISY if name in regardless else CONVERTED
            if timed and after >= before:
                why = NO_FASTER
            found[name] = Effect(
                in_integers=name in integers,
                snr_db=-10 * math.log10(noise) if 0 < noise < math.inf else None,
                time_in_floats=before if timed else None,
                time_in_integers=after if timed else None,
                why="" if name in integers else why,
            )
        return found

    def fastest(self, allowed: float) -> frozenset[str]:
        """Return the layers in integers in the fastest choice whose noise adds up to at most `allowed`.

        The variables: of each layer, whether it is in integers; of each group of values, whether one layer
        around it is, and whether all are.
        """
        names, groups = list(self.noise), [group for group in self.between if group.layers]
        if not names or not allowed > 0:
            return frozenset()
        place = {name: number for number, name in enumerate(names)}
        count, total = len(names), len(names) + 2 * len(groups)
        gains = [self.integers.get(name, 0) - self.floats.get(name, 0) for name in names]
        seconds = [group.seconds for group in groups]
        costs = np.array([*gains, *seconds, *(-each for each in seconds)])
        noise = (
            np.array([*(self.noise[name] for name in names), *(group.noise for group in groups)]) / allowed
        )
        # One that is too noisy alone stays out; an infinite coefficient is none.
        budget = np.pad(np.minimum(noise, 2), (0, len(groups)))
        rows = [
            row
            for number, group in enumerate(groups)
            for name in group.layers
            for row in (
                (place[name], 1, count + number, -1),  # x <= some
                (count + len(groups) + number, 1, place[name], -1),  # all <= x
            )
        ]
        links = sparse.lil_array((max(len(rows), 1), total))
        for number, (first, plus, second, minus) in enumerate(rows):
            links[number, first], links[number, second] = plus, minus
        found = optimize.milp(
            costs / (np.abs(costs).max(initial=0) or 1),
            integrality=np.arange(total) < count,
            bounds=optimize.Bounds(0, 1),
            constraints=[
                optimize.LinearConstraint(budget[None], ub=1),
                optimize.LinearConstraint(sparse.csr_array(links), ub=0),
            ],
            options={"time_limit": SOLVE_SECONDS, "mip_rel_gap": GAP},
        )
        if found.x is None:
            return frozenset()
        return frozenset(name for name, share in zip(names, found.x, strict=False) if share > 0.5)


@cache
def seconds_to_part() -> float:
    """Return what it costs this machine to turn one number between integers and floats, measured.

    Besides the conversion, the layouts of the kernels differ: it is half a way there and back with both.
    """
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"]),
        helper.make_node("Transpose", ["codes"], ["last"], perm=[0, 2, 1]),
        helper.make_node("Transpose", ["last"], ["first"], perm=[0, 2, 1]),
        helper.make_node("DequantizeLinear", ["first", "scale", "zero"], ["back"]),
        helper.make_node("Transpose", ["back"], ["blocked"], perm=[0, 2, 1]),
        helper.make_node("Transpose", ["blocked"], ["y"], perm=[0, 2, 1]),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 64, ELEMENTS // 64]) for name in "xy"
    ]
    numbers = {"scale": np.float32(0.01), "zero": np.uint8(128)}
    stored = [onnx.numpy_helper.from_array(np.array(content), name) for name, content in numbers.items()]
    graph = helper.make_graph(nodes, "conversion", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    # Optimized, what goes there and back would be dropped.
    run = session(ir.from_proto(model), threads=1, optimize=False)
    values = np.linspace(-1, 1, ELEMENTS, dtype=np.float32).reshape(1, 64, -1)
    return processor_time(lambda: run.run(None, {"x": values})) / ELEMENTS / 2
