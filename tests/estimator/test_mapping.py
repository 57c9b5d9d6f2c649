"""The tile search: bounds of physics, and schedules published by others."""

from __future__ import annotations

import math
import time

import limits
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.estimator.mapping import DATAFLOWS, Loops, Words, search, whole_maps

small = st.integers(1, 40)
words = st.sampled_from([0.5, 1.0, 2.0, 4.0])


@st.composite
def nests(draw: st.DrawFn) -> Loops:
    kernel = draw(st.sampled_from([1, 2, 3, 5]))
    stride = draw(st.integers(1, kernel))
    out = (draw(small), draw(small))
    padding = draw(st.integers(0, kernel - 1))
    return Loops(
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 200)),
        draw(st.integers(1, 200)),
        out,
        (kernel, kernel),
        (stride, stride),
        padding=(padding, padding),
    )


def moved_bytes(loops: Loops, word: Words, capacity: float, **options: object) -> float:
    passes = search(loops, word, word, capacity, **options)  # type: ignore[arg-type]
    return math.fsum(count * w * p for count, w, p in zip(loops.elements, word, passes, strict=True))


@settings(max_examples=150, deadline=None)
@given(nests(), st.builds(Words, words, words, words), st.floats(64, 1e6))
def test_never_below_compulsory(loops: Loops, word: Words, capacity: float) -> None:
    once = math.fsum(count * w for count, w in zip(loops.elements, word, strict=True))
    assert moved_bytes(loops, word, capacity) >= once * (1 - 1e-9)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 500), st.integers(8, 100_000))
def test_never_below_hong_kung(m: int, n: int, k: int, capacity: int) -> None:
    """Smith et al. 2019: a matrix product through S words of fast memory moves >= 2mnk / sqrt(S) - 2S."""
    bound = 2 * m * n * k / math.sqrt(capacity) - 2 * capacity
    assert moved_bytes(Loops(m=m, c=k, out=(n, 1)), Words(1, 1, 1), capacity) >= bound


@settings(max_examples=100, deadline=None)
@given(nests(), words, st.floats(64, 1e5), st.floats(1, 8))
def test_larger_buffers_never_move_more(loops: Loops, word: float, capacity: float, factor: float) -> None:
    every = Words(word, word, word)
    assert moved_bytes(loops, every, capacity * factor) <= moved_bytes(loops, every, capacity) * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(nests(), st.floats(64, 1e5))
def test_fewer_bits_never_move_more(loops: Loops, capacity: float) -> None:
    assert moved_bytes(loops, Words(1, 0.5, 1), capacity) <= moved_bytes(loops, Words(2, 1, 2), capacity)


def test_everything_fits() -> None:
    loops = Loops(n=2, m=8, c=4, out=(6, 6), kernel=(3, 3), padding=(2, 2))
    assert search(loops, Words(1, 1, 1), Words(1, 1, 1), 1e6) == (1.0, 1.0, 1.0)


def test_timeloop_convolution() -> None:
    """Timeloop's published mapping of this layer moves 554,147 words at best, 572,528 at 8 x 2 tiles."""
    loops = Loops(m=32, c=3, out=(112, 112), kernel=(3, 3), stride=(2, 2))
    words = Words(1, 1, 1)
    assert moved_bytes(loops, words, 1e6) == 554_147
    assert abs(moved_bytes(loops, words, 65_536) / 554_147 - 1) < 0.01


def test_streamed_weights_are_never_stationary() -> None:
    loops = Loops(m=64, c=512, out=(64, 64))
    word = Words(1, 1, 1)
    held = search(loops, word, word, 4096, DATAFLOWS, True)
    assert held.weight > 1


def test_a_distinct_layer_takes_a_millisecond() -> None:
    shapes = [Loops(m=m, c=c, out=(p, 1)) for m in (512, 1000, 4096) for c in (576, 4096) for p in (49, 128)]
    shapes += [Loops(m=m, c=m, out=(p, p), kernel=(3, 3)) for m in (64, 512) for p in (7, 56)]
    search(Loops(), Words(1, 1, 1), Words(1, 1, 1), 100)
    start = time.process_time()
    for loops in shapes:
        search(loops, Words(4, 4, 4), Words(4, 4, 4), 123_456)
    assert (time.process_time() - start) / len(shapes) < 0.005  # a loaded machine gets slack


def test_whole_maps_repeat_inputs_and_partial_sums_that_do_not_stay() -> None:
    loops = Loops(m=64, c=32, out=(96, 96), kernel=(3, 3), padding=(2, 2))
    words, block = Words(4, 4, 4), 96 * 96 * 32 * 4
    assert whole_maps(loops, words, 1e9, 32, 8) == (1, 1, 1)
    assert whole_maps(loops, words, block + 1, 32, 8) == (2, 1, 1)
    assert whole_maps(loops, words, block - 1, 32, 8) == (2, 1, 7)


@pytest.mark.slow
def test_ten_thousand_random_layers_keep_both_bounds() -> None:
    assert limits.beaten(10_000)[:2] == (0, 0)
