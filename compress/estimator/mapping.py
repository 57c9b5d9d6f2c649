"""Tile search: how often each operand of a loop nest crosses into a buffer of given size.

A contraction (convolution or matrix product) is a nest of loops over batch n, output channels m,
input channels c and output pixels p, q, around a kernel window. A buffer holds one tile of each
operand. The innermost of the three outer loops (m, c, or the pixels) decides which operand stays
while the others stream past, so three dataflows cover all six loop orders:

- output-stationary (c innermost): outputs leave once, inputs repeat per tile of m, weights per pixel tile;
- input-stationary (m innermost): inputs enter once, weights repeat, partial sums go out and come back;
- weight-stationary (pixels innermost): weights enter once, inputs and partial sums repeat.

Each level of the memory is searched on its own against the whole nest. Tiles that also nest inside
one another would move at least as much, so inner levels are slightly optimistic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

Dataflow: TypeAlias = Literal["output-stationary", "input-stationary", "weight-stationary"]
Kernel: TypeAlias = Literal["dense", "convolution", "depthwise", "pointwise"]
DATAFLOWS: tuple[Dataflow, ...] = ("output-stationary", "input-stationary", "weight-stationary")
MAX_CANDIDATES = 24
"""Tile sizes tried in each dimension of a three-dimensional search."""
GRID = 16
"""Numbers of rows, and of columns, that are combined in a search over both."""


@dataclass(frozen=True, slots=True)
class Loops:
    """A contraction's loop nest, ``O[n, m, p, q] += I[n, c, stride p + r, stride q + s] * W[m, c, r, s]``.

    A matrix product of [P, C] and [C, M] has P output rows in `out`. `groups` nests run one after
    the other on operands of their own (grouped convolution, batched matrix products).
    """

    groups: int = 1
    n: int = 1
    m: int = 1
    c: int = 1
    out: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    """Rows and columns of padding, both sides together."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole nest."""
        return self.groups * self.n * self.m * self.c * math.prod(self.out) * math.prod(self.kernel)

    @property
    def kernel_kind(self) -> Kernel:
        """Which kernel a processor runs: dense has one row and so uses every weight once."""
        if math.prod(self.kernel) > 1:
            return "depthwise" if self.groups > 1 and self.c == 1 else "convolution"
        return "dense" if self.n * math.prod(self.out) == 1 else "pointwise"

    @property
    def elements(self) -> tuple[int, int, int]:
        """Distinct elements of input, weight and output, padding left out."""
        inputs = self.n * self.c * math.prod(self.input_size)
        weights = self.m * self.c * math.prod(self.kernel)
        outputs = self.n * self.m * math.prod(self.out)
        return self.groups * inputs, self.groups * weights, self.groups * outputs

    @property
    def window(self) -> tuple[int, int]:
        """Input rows and columns that one output pixel reads, gaps of the dilation included."""
        rows, columns = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        return rows, columns

    @property
    def input_size(self) -> tuple[int, int]:
        """Input rows and columns that are read, without padding and without gaps between windows."""
        rows, columns = (
            max((size - 1) * min(step, reach) + reach - pad, 1)
            for size, step, reach, pad in zip(self.out, self.stride, self.window, self.padding, strict=True)
        )
        return rows, columns


class Words(NamedTuple):
    """Bytes per element of input, weight and output."""

    input: float
    weight: float
    output: float


class Crossings(NamedTuple):
    """How often each operand crosses, with partial sums and halo; 1 means each element once."""

    input: float
    weight: float
    output: float


class _Tiles(NamedTuple):
    """Candidate tiles of the pixel loops (n, p and q together), one entry a candidate."""

    held_inputs: np.ndarray
    """Input pixels of one tile, for all images in it."""
    held_outputs: np.ndarray
    trips: np.ndarray
    moved_inputs: np.ndarray
    """Input pixels of all tiles together; every tile counts its own halo."""


class _Tilings(NamedTuple):
    """Combinations of tiles of one dataflow; axes are pixel tiles, m tiles, c tiles."""

    inputs: np.ndarray
    """Elements of the input tile; `weights` and `outputs` likewise."""
    weights: np.ndarray
    outputs: np.ndarray
    crossings: tuple[np.ndarray, np.ndarray, np.ndarray]


@lru_cache(maxsize=65536)
def search(
    loops: Loops,
    moved: Words,
    held: Words,
    capacity_bytes: float,
    dataflows: tuple[Dataflow, ...] = DATAFLOWS,
    streams_weights: bool = False,
    moves_padding: bool = False,
    whole_rows: bool = False,
) -> Crossings:
    """Return the crossings of the cheapest tiling that fits the buffer.

    Args:
        loops: the nest; one of its groups is in the buffer at a time.
        moved: bytes per element on the way, compressed formats counted.
        held: bytes per element inside the buffer.
        capacity_bytes: size of the buffer that the tiles fill.
        dataflows: loop orders that the hardware can run.
        streams_weights: weights bypass the buffer, so they take no room in it and cannot be stationary.
        moves_padding: padding is fetched like data.
        whole_rows: tiles are not cut into columns while a whole row fits.

    If the buffer is too small for any tile (one word of each operand), every multiply-accumulate
    fetches its operands.
    """
    if not moves_padding and _room(loops, held, streams_weights) <= capacity_bytes:
        return Crossings(1.0, 1.0, 1.0)
    best: tuple[float, Crossings] | None = None
    sizes = [count * word / loops.groups for count, word in zip(loops.elements, moved, strict=True)]
    for dataflow in dataflows:
        if dataflow == "weight-stationary" and streams_weights:
            continue
        found = _search_one(
            _tilings(loops, dataflow, moves_padding, whole_rows), held, sizes, capacity_bytes, streams_weights
        )
        if found is not None and (best is None or found[0] < best[0]):
            best = found
    return best[1] if best is not None else _without_reuse(loops)


def _room(loops: Loops, held: Words, streams_weights: bool) -> float:
    """Return the bytes of one group's whole operands."""
    inputs, weights, outputs = (
        count * word / loops.groups for count, word in zip(loops.elements, held, strict=True)
    )
    return inputs + outputs + (0.0 if streams_weights else weights)


@lru_cache(maxsize=8)
def _tilings(loops: Loops, dataflow: Dataflow, moves_padding: bool, whole_rows: bool) -> _Tilings:
    """Return all combinations of tiles; they are the same for every level of memory."""
    pixels = _pixel_tiles(loops, moves_padding, whole_rows)
    full = dataflow == "weight-stationary"
    most = MAX_CANDIDATES if full else None
    # The innermost loop's tile costs room and saves nothing: one channel of it is best.
    m = np.ones(1, int) if dataflow == "input-stationary" else _sizes(loops.m, most)
    c = np.ones(1, int) if dataflow == "output-stationary" else _sizes(loops.c, most)
    if full:
        pixels = _least_halo(pixels)
    tile_m, tile_c = m[None, :, None], c[None, None, :]
    return _Tilings(
        pixels.held_inputs[:, None, None] * tile_c,
        tile_m * tile_c * math.prod(loops.kernel),
        pixels.held_outputs[:, None, None] * tile_m,
        _crossings(loops, pixels, tile_m, tile_c, dataflow),
    )


def _least_halo(pixels: _Tiles) -> _Tiles:
    """Return the tiles with less halo than every smaller one, at most `MAX_CANDIDATES` of them."""
    order = np.lexsort((pixels.moved_inputs, pixels.held_outputs))
    moved = pixels.moved_inputs[order]
    better = np.concatenate([[True], moved[1:] < np.minimum.accumulate(moved)[:-1]])
    kept = order[better]
    kept = kept[_spread(len(kept), MAX_CANDIDATES)]
    return _Tiles(*(axis[kept] for axis in pixels))


def _search_one(
    tilings: _Tilings, held: Words, sizes: Sequence[float], capacity_bytes: float, streams_weights: bool
) -> tuple[float, Crossings] | None:
    """Return traffic and crossings of the best of one dataflow's tilings, None if none fits."""
    room = tilings.inputs * held.input + tilings.outputs * held.output
    if not streams_weights:
        room = room + tilings.weights * held.weight
    traffic = sum(size * crossed for size, crossed in zip(sizes, tilings.crossings, strict=True))
    traffic = np.where(room <= capacity_bytes, traffic, np.inf)
    index = np.unravel_index(int(np.argmin(traffic)), traffic.shape)
    if not np.isfinite(traffic[index]):
        return None
    chosen = (float(np.broadcast_to(crossed, traffic.shape)[index]) for crossed in tilings.crossings)
    return float(traffic[index]), Crossings(*chosen)


def _crossings(
    loops: Loops, pixels: _Tiles, tile_m: np.ndarray, tile_c: np.ndarray, dataflow: Dataflow
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the crossings of input, weight and output for every combination of tiles."""
    one = np.ones((1, 1, 1))
    trips = pixels.trips[:, None, None]
    trips_m, trips_c = -(-loops.m // tile_m), -(-loops.c // tile_c)
    halo = pixels.moved_inputs[:, None, None] / (loops.n * math.prod(loops.input_size))
    return (
        halo if dataflow == "input-stationary" else halo * trips_m,
        one if dataflow == "weight-stationary" else trips,
        one if dataflow == "output-stationary" else 2 * trips_c - 1,
    )


def crossings(
    loops: Loops, n: int, p: int, q: int, m: int, c: int, dataflow: Dataflow, moves_padding: bool = False
) -> Crossings:
    """Return the crossings of one given tiling, to check published schedules."""
    tile = _tiles(loops, np.array([[n]]), np.array([p]), np.array([q]), moves_padding)
    found = _crossings(loops, tile, np.array([[[m]]]), np.array([[[c]]]), dataflow)
    return Crossings(*(float(crossed.item()) for crossed in found))


def whole_maps(loops: Loops, held: Words, capacity_bytes: float, outputs: int, inputs: int) -> Crossings:
    """Return the crossings of a direct convolution that does not cut its maps into tiles.

    For each block of `outputs` channels it reads all inputs, `inputs` channels at a time, and adds to the
    whole output map of the block. The inputs are read again for every block unless all of them fit. An
    output map that does not fit goes out and comes back for every block of inputs. This is the order of
    ONNX Runtime's NCHWc kernels on CPUs (MLAS).
    """
    blocks_out, blocks_in = -(-loops.m // outputs), -(-loops.c // inputs)
    all_inputs, weights, results = (
        count / loops.groups / loops.n * word for count, word in zip(loops.elements, held, strict=True)
    )
    block = results * min(outputs, loops.m) / loops.m
    room = capacity_bytes - block
    stays = room >= 0
    return Crossings(
        1.0 if all_inputs <= room else float(blocks_out),
        1.0 if weights * loops.n <= room else float(loops.n),
        1.0 if stays else 2.0 * blocks_in - 1,
    )


def _without_reuse(loops: Loops) -> Crossings:
    pixels = loops.n * math.prod(loops.out)
    inputs = loops.n * math.prod(loops.input_size)
    return Crossings(pixels * math.prod(loops.kernel) * loops.m / inputs, pixels, 2 * loops.c - 1)


def _pixel_tiles(loops: Loops, moves_padding: bool, whole_rows: bool) -> _Tiles:
    """Return tiles of whole rows, and of rows cut into columns, each over 1 to n images.

    If windows overlap, tiles of several rows and columns have less halo; otherwise only the area counts.
    """
    p_all, q_all = loops.out
    overlap = any(reach > step for reach, step in zip(loops.window, loops.stride, strict=True))
    overlap = overlap and not whole_rows
    columns = _sizes(q_all, GRID)[:-1] if overlap else _sizes(q_all)[:-1]
    rows = _sizes(p_all, GRID) if overlap else np.ones(1, int)
    shapes = [(p, q_all) for p in _sizes(p_all)] + [(p, q) for q in columns for p in rows]
    p, q = np.array(shapes).T
    return _tiles(loops, _sizes(loops.n)[:, None], p, q, moves_padding)


def _tiles(loops: Loops, n: np.ndarray, p: np.ndarray, q: np.ndarray, moves_padding: bool) -> _Tiles:
    trips_p, trips_q = -(-loops.out[0] // p), -(-loops.out[1] // q)
    rows, held_rows = _extent(loops, 0, p, trips_p, moves_padding)
    columns, held_columns = _extent(loops, 1, q, trips_q, moves_padding)
    grid = np.broadcast_shapes(n.shape, p.shape)
    arrays = (
        n * held_rows * held_columns,
        n * p * q,
        -(-loops.n // n) * trips_p * trips_q,
        np.broadcast_to(loops.n * rows * columns, grid),
    )
    return _Tiles(*(array.ravel() for array in arrays))


def _extent(
    loops: Loops, axis: int, tile: np.ndarray, trips: np.ndarray, moves_padding: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return input rows (or columns) moved by all tiles, and held by one tile."""
    reach = loops.window[axis]
    step = min(loops.stride[axis], reach)
    padding = 0 if moves_padding else loops.padding[axis]
    overlap = reach - step
    whole = max((loops.out[axis] - 1) * step + reach - padding, 1)
    return whole + (trips - 1) * overlap, np.minimum((tile - 1) * step + reach, whole)


@lru_cache(maxsize=4096)
def _sizes(extent: int, most: int | None = None) -> np.ndarray:
    """Return the tile sizes worth trying: t and ceil(extent / t) for t up to the square root."""
    small = np.arange(1, math.isqrt(extent) + 1)
    sizes = np.unique(np.concatenate([small, -(-extent // small)]))
    return sizes if most is None else sizes[_spread(len(sizes), most)]


def _spread(count: int, most: int) -> np.ndarray:
    """Return at most `most` indices spread over ``range(count)``, both ends included."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).astype(int))
