"""How long the runtime's kernels take on one machine, by kernel and shape.

Every kernel has a time that is linear in what it does: one call, the images or products in it, their
multiply-accumulates or operations, and the bytes that it reads, takes as weights and writes. The constants
are fitted to short runs of small networks on the machine, see `compress.estimator.trials`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.optimize import nnls

from compress.errors import HardwareError, first_line
from compress.estimator.files import kernels_path

if TYPE_CHECKING:
    from compress.estimator.mapping import Loops
    from compress.estimator.workload import LayerWork

Constants: TypeAlias = tuple[float, ...]
"""Seconds of a call, of an image or product in it, of a multiply-accumulate or operation, and of a byte read,
of weights, and written."""
COUNT = 6
"""How many constants a kernel has."""
FEWEST = 6
"""Timings that a kernel needs for constants of its own."""
ROUNDS = 4
"""Rounds in which timings far from the fit, disturbed by other programs, lose weight."""
PRIOR = 0.1
"""Weight of what is known from kernels alike, beside one timing."""
SLIGHT = 0.1
"""Part of a time that a constant may add before kernels alike speak against it."""
FEW_CHANNELS = 8
"""Channels below which the runtime's blocked convolutions have a kernel of their own."""
BLOCK = 8
"""Channels that blocked convolutions put out together; other numbers are left to a slower kernel."""
LANES, ALONE = 8, 4
"""Positions of a result that a float matrix product computes together, and how many take as long as one
alone: a product with a vector is another kernel. Read off runs of small convolutions."""
ELEMENTS = "element by element"
"""What all kernels without multiply-accumulates are called together."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One layer's time."""

    layer: LayerWork
    seconds: float


@dataclass(frozen=True)
class Kernels:
    """The constants of a machine's kernels.

    Attributes:
        machine: what the machine is, in words.
        constants: by kernel, as `kinds` names it.
    """

    machine: str
    constants: Mapping[str, Constants]

    def seconds(self, layer: LayerWork) -> float:
        """Return how long a layer takes; an unknown kernel takes as long as others of its kind."""
        known = next((self.constants[kind] for kind in kinds(layer) if kind in self.constants), None)
        if known is None:
            known = self.constants[ELEMENTS]
        return layer.steps * float(np.dot(known, _features(layer)))

    def save(self, path: Path) -> None:
        """Write the constants, whole or not at all."""
        kernels = {name: list(each) for name, each in sorted(self.constants.items())}
        text = json.dumps({"machine": self.machine, "kernels": kernels}, indent=1)
        scratch = path.with_name(f".{path.name}.partial")
        scratch.write_text(f"{text}\n", encoding="utf-8")
        scratch.replace(path)

    @classmethod
    def load(cls, path: Path) -> Kernels:
        """Read constants that `save` wrote.

        Raises:
            HardwareError: the file is damaged.
        """
        try:
            content = json.loads(path.read_bytes())
            constants = {name: tuple(map(float, each)) for name, each in content["kernels"].items()}
            if any(len(each) != COUNT for each in constants.values()) or ELEMENTS not in constants:
                raise ValueError("other constants than an estimate needs")
            return cls(str(content["machine"]), constants)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            again = "remove it, or write it anew with 'compress hardware calibrate'"
            raise HardwareError(f"{path}: no kernel times: {first_line(error)}; {again}") from error


@cache
def of_this_machine() -> Kernels | None:
    """Return the constants of this machine: its own if it was calibrated, or else those of one alike."""
    path = kernels_path()
    return Kernels.load(path) if path is not None else None


def kinds(layer: LayerWork) -> list[str]:
    """Return what a layer's kernel is called, the closest name first, then kernels alike."""
    loops = layer.loops
    if loops is None:
        return [layer.op_type]
    number = f"{layer.number.kind}{layer.number.bits}"
    if layer.op_type.endswith("Conv") or layer.op_type == "ConvInteger":
        if loops.groups > 1 and loops.c == loops.m == 1:
            shape = "depthwise"
        elif math.prod(loops.kernel) == 1:
            shape = "pointwise"
        elif min(loops.kernel) == 1:
            shape = "along one axis"
        else:
            shape = "of few channels" if loops.c < FEW_CHANNELS else "spatial"
        blocked = (loops.groups if shape == "depthwise" else loops.m) % BLOCK == 0
        shape += "" if blocked else ", odd"
        return [f"{layer.op_type} {shape}", f"convolution {number} {shape}", f"product {number}"]
    rows = "one row" if math.prod(loops.out) * loops.n == 1 else "rows"
    stored = f" {layer.weight.bits} bits" if layer.weight.encoded else ""
    read = "weights" if layer.weight.is_weight else "activations"
    return [f"{layer.op_type}{stored}, {rows}, {read}", f"product {number}, {rows}", f"product {number}"]


def fit(machine: str, timings: Iterable[Timing]) -> Kernels:
    """Return the constants that come closest to the timings, relative to each.

    What the timings of a kernel do not tell, such as the cost of weights where all had about as many, is
    taken from kernels alike.
    """
    samples: dict[str, list[Timing]] = defaultdict(list)
    alike: dict[str, str] = {}
    for each in timings:
        names = kinds(each.layer)
        names = names if each.layer.loops is not None else [*names, ELEMENTS]
        alike |= dict(itertools.pairwise(names))
        for kind in names:
            samples[kind].append(each)
    constants: dict[str, Constants] = {}

    def found(kind: str) -> Constants | None:
        if kind not in constants and len(samples[kind]) >= FEWEST:
            constants[kind] = _fitted(samples[kind], found(alike[kind]) if kind in alike else None)
        return constants.get(kind)

    for kind in list(samples):
        found(kind)
    return Kernels(machine, constants)


def _fitted(timings: Sequence[Timing], prior: Constants | None) -> Constants:
    """Return the constants of one kernel by non-negative least squares, with little weight to outliers."""
    rows = np.array([_features(each.layer) for each in timings])
    rows *= [[each.layer.steps / each.seconds] for each in timings]
    scale = np.where(rows.max(0) > 0, rows.max(0), 1)
    expected = np.array(prior or [0.0] * len(scale))
    doubt = PRIOR / np.maximum(expected, SLIGHT / scale) if prior is not None else np.zeros(len(scale))
    trust = np.ones(len(rows))
    for _ in range(ROUNDS):
        system = np.vstack([rows * trust[:, None], np.diag(doubt)]) / scale
        found = nnls(system, np.concatenate([trust, doubt * expected]))[0] / scale
        apart = np.abs(rows @ found - 1)
        trust = np.minimum(np.sqrt(max(float(np.median(apart)), 1e-9) / np.maximum(apart, 1e-9)), 1)
    return tuple(map(float, found))


def _filled(layer: LayerWork, loops: Loops) -> float:
    """Return by how much a convolution's work grows as its positions fill up the lanes of a matrix product.

    Float convolutions of one axis, and those that fill no blocks, are one product an image.
    """
    positions = math.prod(loops.out)
    blocked = loops.m % BLOCK == 0 and not loops.kernel[0] == loops.out[0] == 1
    if layer.op_type not in ("Conv", "FusedConv") or loops.groups > 1 or blocked or not positions:
        return 1.0
    return ALONE if positions == 1 else -(-positions // LANES) * LANES / positions


def _features(layer: LayerWork) -> list[float]:
    """Return what the time of one step of a layer is linear in."""
    work = layer.loops.macs * _filled(layer, layer.loops) if layer.loops is not None else layer.ops
    weights = math.fsum(each.bytes for each in layer.operands if each.is_weight)
    written = layer.output.bytes or math.fsum(
        each.bytes for each in layer.streamed if each.name == layer.produces
    )
    parts = layer.loops.groups * layer.loops.n if layer.loops is not None else 0
    return [1.0, parts, work, max(layer.bytes - weights - written, 0.0), weights, written]
