"""Learned rounding block by block: the weights of a block are rounded together, for the block's outputs.

Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction" (2021). A block is
fed with what the quantized blocks before it give, half of it replaced at random by what the float model
gives, after Wei et al., "QDrop: Randomly Dropping Quantization for Extremely Low-bit Post-Training
Quantization" (2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compress.diagnose.timing import Stopwatch
from compress.errors import ModelError
from compress.graph import batch
from compress.graph.session import session
from compress.numerics.affine import Quantized
from compress.numerics.rounding import learn_together
from compress.progress import track
from compress.quantize.blocks import Block, blocks
from compress.quantize.regions import find
from compress.train.fake_quantizers import FakeQuantizer, insert
from compress.trainable.module import Trainable

if TYPE_CHECKING:
    from compress.model import Model
    from compress.quantize.static import Grid

Values: TypeAlias = dict[str, Tensor]
STEPS = 100
"""Optimizer steps of a round of learning; the next round goes on from what it found."""
MOST_ROUNDS = 4
"""Most rounds of a block; the first that does not help on data held out ends them."""
FLOAT_SHARE = 0.5
"""Share of a block's inputs that come from the float model as it learns."""
MOST_SAMPLES, MOST_NUMBERS = 16, 1 << 19
"""Most samples, and most numbers of inputs, that a step sees; a whole batch if no batch axis is known."""
MOST_PIECES = 64
"""Most pieces of the calibration data that are read, each what a step sees."""
CARRIED_BYTES = 1 << 29
"""Memory for the values between blocks; fewer pieces are read where they need more."""
JUDGING = 4
"""Every fourth piece judges what was learnt from the others."""


def reconstruct(
    model: Model,
    chosen: Callable[..., bool],
    grids: Mapping[str, Grid],
    start: Mapping[str, Quantized],
    seconds: float = math.inf,
) -> tuple[dict[str, Quantized], str]:
    """Return the integers of the weights of integer kernels, learnt block by block, and what was found.

    A block keeps what a round learnt if its outputs come closer to the float model's, both on the data that
    it was learnt from and on data held out; otherwise it keeps what it had.

    Args:
        model: a folded and prepared float model with calibration data.
        chosen: called with the names of a layer's node and weight.
        grids: what the integers of each quantized activation stand for, by name.
        start: the integers of the weights of all kernels, by name; scales stay.
        seconds: time after which no further block is begun; those behind keep what they had.

    Raises:
        DataError: there are no calibration data.
    """
    try:
        parts = _parts(model, chosen, grids)
    except ModelError as error:
        return dict(start), f"rounding not learnt in blocks, because torch runs no part of it: {error}"
    decided = dict(start)
    pieces = _pieces(model, parts)
    streams = _Streams([dict(piece) for piece in pieces], [dict(piece) for piece in pieces])
    generator = torch.Generator().manual_seed(0)
    better, watch = 0, Stopwatch()
    for part in track(parts, "rounding of blocks"):
        if watch.seconds > seconds:
            break
        targets = streams.targets(part)
        if part.weights:
            learned = _learn(part, decided, streams, targets, generator)
            better += bool(learned)
            decided |= learned
        streams.advance(part, decided, targets)
    count = sum(bool(part.weights) for part in parts)
    others = "would not help, or was not begun in time" if watch.seconds > seconds else "would not help"
    return decided, f"rounding learnt in {better} of {count} blocks; in others it {others}"


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A block that torch runs, with its weights among the inputs.

    Attributes:
        block: the block.
        weights: its weights in float.
        original: computes the outputs.
        rounded: computes them with rounded activations.
    """

    block: Block
    weights: Values
    original: Trainable
    rounded: Trainable

    def inputs(self, values: Values) -> Values:
        """Return what the block reads of values."""
        return {name: values[name] for name in self.block.inputs}


@dataclass(frozen=True, slots=True)
class _Streams:
    """The values between two blocks, of the float model and of the quantized one, a mapping a piece."""

    floats: list[Values]
    rounded: list[Values]

    @torch.no_grad()
    def targets(self, part: _Part) -> list[tuple[Tensor, ...]]:
        """Return the outputs of the float model."""
        return [part.original(part.inputs(values) | part.weights) for values in self.floats]

    @torch.no_grad()
    def advance(
        self, part: _Part, integers: Mapping[str, Quantized], targets: Sequence[tuple[Tensor, ...]]
    ) -> None:
        """Put a block's outputs in the place of the values that nothing reads any more."""
        weights = {name: integers[name].dequantize() for name in part.weights}
        for place, values in enumerate(self.rounded):
            outputs = part.rounded(part.inputs(values) | weights)
            for each, made in ((self.floats[place], targets[place]), (values, outputs)):
                each.update(zip(part.block.outputs, made, strict=True))
                for name in part.block.spent:
                    each.pop(name, None)

    def mixed(self, part: _Part, place: int, generator: torch.Generator) -> Values:
        """Return what a block reads of one piece, some elements as the float model has them."""
        found = part.inputs(self.rounded[place])
        for name, original in part.inputs(self.floats[place]).items():
            if original.is_floating_point():
                taken = torch.rand(original.shape, generator=generator) < FLOAT_SHARE
                found[name] = torch.where(taken, original, found[name])
        return found


def _parts(model: Model, chosen: Callable[..., bool], grids: Mapping[str, Grid]) -> list[_Part]:
    """Return the blocks of a model.

    Raises:
        ModelError: torch cannot run a node.
    """
    rounded = model.ir.clone()
    regions = find(rounded.graph, chosen)
    found = [block for block in blocks(rounded.graph, regions.kernels) if block.outputs]
    contents = {layer.weight.name or "": torch.from_numpy(np.array(layer.array)) for layer in regions.kernels}
    # A weight that several blocks share is learnt in the first of them, and float in the others.
    owned = {name: block for block in reversed(found) for name in block.names}
    for value, readers in regions.readers.items():
        grid, owner = grids[value.name or ""], regions.range_owner(value).name or ""
        low, high = (end - grid.zero_point for end in grid.integers.limits)
        insert(rounded.graph, value, readers, FakeQuantizer(owner, torch.tensor(grid.scale), low, high))
    parts = []
    for block in found:
        mine = [name for name in block.names if owned[name] is block]
        modules = (_module(each, block, mine) for each in (model.ir, rounded))
        parts.append(_Part(block, {name: contents[name] for name in mine}, *modules))
    return parts


def _module(model: ir.Model, block: Block, weights: Sequence[str]) -> Trainable:
    """Return a block of a graph whose weights are inputs."""
    part = ir.convenience.extract(model.graph, [*block.inputs, *weights], block.outputs)
    for name in weights:
        part.initializers.pop(name).const_value = None
    return Trainable(ir.Model(part, ir_version=model.ir_version), trained=()).eval()


def _pieces(model: Model, parts: Sequence[_Part]) -> list[Values]:
    """Return pieces of the calibration data, as many as `MOST_PIECES` and `CARRIED_BYTES` allow."""
    assert model.calibration is not None  # `model.batches` raises without
    found: list[Values] = []
    axes, most = None, MOST_PIECES
    for feeds in model.batches():
        if axes is None:
            run = partial(session(model.ir).run, None)
            axes = batch.find(run, model.graph.inputs, [feeds], model.calibration.batch_axis)
        size = axes.size(feeds)
        numbers = sum(np.size(array) for array in feeds.values()) // size
        step = min(max(MOST_NUMBERS // max(numbers, 1), 1), MOST_SAMPLES, size)
        for first in range(0, size - step + 1, step):
            samples = {
                name: np.take(array, range(first, first + step), axes.inputs[name])
                if name in axes.inputs
                else array
                for name, array in feeds.items()
            }
            found.append({name: torch.from_numpy(np.array(array)) for name, array in samples.items()})
            if len(found) == 1:
                most = min(most, max(CARRIED_BYTES // _carried_bytes(parts, found[0]), 1))
            if len(found) == most:
                return found
    return found


def _carried_bytes(parts: Sequence[_Part], piece: Values) -> int:
    """Return the most bytes that one piece takes between blocks: in float, quantized, and as targets."""
    streams = _Streams([dict(piece)], [])
    most = 1
    for part in parts:
        targets = streams.targets(part)[0]
        values = streams.floats[0]
        values.update(zip(part.block.outputs, targets, strict=True))
        most = max(most, sum(each.nbytes for each in values.values()))
        for name in part.block.spent:
            values.pop(name, None)
    return 3 * most


def _learn(
    part: _Part,
    integers: Mapping[str, Quantized],
    streams: _Streams,
    targets: Sequence[tuple[Tensor, ...]],
    generator: torch.Generator,
) -> dict[str, Quantized]:
    """Return the integers of a block's weights that bring its outputs closer; none if nothing does."""
    places = range(len(targets))
    judging = [place for place in places if place % JUDGING == JUDGING - 1] or list(places)
    teaching = [place for place in places if place not in judging] or judging
    start = {name: integers[name] for name in part.weights}

    def errors(weights: Mapping[str, Tensor], inputs: Values, place: int) -> Tensor:
        outputs = part.rounded({**inputs, **weights})
        pairs = zip(outputs, targets[place], strict=True)
        return torch.stack([(a - b).square().mean() for a, b in pairs if b.is_floating_point()])

    @torch.no_grad()
    def total(found: Mapping[str, Quantized], values: Sequence[Values], of: Sequence[int]) -> Tensor:
        weights = {name: each.dequantize() for name, each in found.items()}
        each = torch.stack([errors(weights, part.inputs(values[place]), place) for place in of])
        return each.mean(0)

    # What the block itself adds is the unit, however much noise comes in.
    unit = total(start, streams.floats, teaching)
    if not bool(((unit > 0) & unit.isfinite()).all()) or not len(unit):
        return {}

    def error(weights: Mapping[str, Tensor], place: int) -> Tensor:
        return (errors(weights, streams.mixed(part, place, generator), place) / unit).sum()

    def judged(found: Mapping[str, Quantized]) -> list[float]:
        return [float((total(found, streams.rounded, of) / unit).sum()) for of in (judging, teaching)]

    best, least = start, judged(start)
    for _ in range(MOST_ROUNDS):
        drawn = torch.randint(len(teaching), (STEPS,), generator=generator).tolist()
        learned = learn_together(part.weights, best, error, (teaching[each] for each in drawn), STEPS)
        now = judged(learned)
        if any(after >= before for after, before in zip(now, least, strict=True)):
            break
        best, least = learned, now
    return best if best is not start else {}
