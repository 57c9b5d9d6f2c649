"""Streaming ranges against the same statistics of data that is kept."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from compress.numerics.formats import IntegerFormat
from compress.numerics.ranges import Histogram, MinMax, MovingAverage, scale_and_zero_point


def samples(kind: str, count: int = 20000) -> np.ndarray:
    rng = np.random.default_rng(3)
    normal = rng.standard_normal(count)
    made = {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "heavy": rng.standard_t(2.5, count),
        "gelu": normal * (1 + np.tanh(0.8 * normal)),
        "outliers": np.concatenate([normal, [200.0, -90.0]]),
        "shifted": normal + 5,
    }[kind]
    return made.astype(np.float32)


def observed(data: np.ndarray, parts: int = 7) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(data, parts):
        histogram.observe(part)
    return histogram


def squared_error(data: np.ndarray, low: float, high: float, bits: int) -> float:
    scale = (high - low) / (2**bits - 1)
    zero = 2 ** (bits - 1) if low == -high else np.rint(-low / scale)
    return float(np.mean((np.clip(np.rint(data / scale), -zero, 2**bits - 1 - zero) * scale - data) ** 2))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.floats(-1e4, 1e4), st.floats(0, 1e3)), max_size=12))
def test_histogram_holds_every_value_where_it_belongs(parts) -> None:
    rng = np.random.default_rng(0)
    histogram, kept = Histogram(bins=64), [np.zeros(0)]
    for count, mean, deviation in parts:
        kept.append(rng.normal(mean, deviation, count))
        histogram.observe(kept[-1])
    data = np.concatenate(kept)
    assert histogram.counts.sum() == data.size
    assert histogram.range("minmax") == (min(0.0, data.min(initial=0)), max(0.0, data.max(initial=0)))
    if data.size and histogram.width > 0:
        numbers = np.floor(data / histogram.width + 0.5).astype(int) - histogram.first
        np.testing.assert_array_equal(histogram.counts, np.bincount(numbers, minlength=64))


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy", "gelu", "outliers", "shifted"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_is_as_good_as_a_search_over_kept_data(kind, bits, symmetric) -> None:
    data = samples(kind)
    low, high = min(float(data.min()), 0.0), max(float(data.max()), 0.0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    ratios = np.geomspace(1, 0.02, 24)
    both_ends = not symmetric and low < 0
    pairs = [(low * a, high * b) for a in ratios for b in (ratios if both_ends else [a])]
    best = min(squared_error(data, *pair, bits) for pair in pairs)
    found = observed(data).range("mse", IntegerFormat(bits, symmetric=symmetric, signed=False))
    assert squared_error(data, *found, bits) <= 1.05 * best
    if symmetric:
        assert found[0] == -found[1]


@pytest.mark.parametrize("kind", ["normal", "heavy", "outliers"])
def test_percentile_of_the_histogram_is_that_of_the_data(kind) -> None:
    data = samples(kind)
    histogram = observed(data)
    low, high = histogram.range("percentile", percentile=99.0)
    np.testing.assert_allclose([low, high], np.percentile(data, [0.5, 99.5]), atol=2 * histogram.width)
    low, high = histogram.range("percentile", IntegerFormat(8), percentile=99.0)
    assert low == -high
    assert high == pytest.approx(np.percentile(np.abs(data), 99.0), rel=0.01)
    assert histogram.range("percentile", percentile=100.0) == histogram.range("minmax")


def test_entropy_clips_rare_outliers_and_little_else() -> None:
    data = np.concatenate([samples("normal", 400_000), np.float32([50.0, -60.0])])
    low, high = observed(data).range("entropy")
    assert -8 < low < -3
    assert 3 < high < 8


@pytest.mark.parametrize("spread", [1, 10, 100])
@pytest.mark.parametrize("symmetric", [True, False])
def test_entropy_keeps_the_ends_at_which_a_clip_piles_values_up(spread, symmetric) -> None:
    data = np.clip(samples("normal", 200_000) * spread, -6, 0.5).astype(np.float32)
    integers = IntegerFormat(8, symmetric=symmetric, signed=False)
    low, high = observed(data).range("entropy", integers)
    assert high == (-low if symmetric else 0.5)
    assert low == -6 or spread == 1, "few normal values lie below -6"


def test_entropy_is_not_decided_by_the_zeros_of_a_relu() -> None:
    data = np.maximum(samples("normal", 400_000), 0)
    low, high = observed(data).range("entropy")
    assert low == 0.0
    assert 3.5 < high <= data.max()


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("arrays", "low", "high"),
    [
        ([], 0.0, 0.0),
        ([np.zeros((0, 3))], 0.0, 0.0),
        ([np.zeros(9)], 0.0, 0.0),
        ([np.zeros(9), np.full(4, 2.0)], 0.0, 2.0),
        ([np.full(4, -2.0)], -2.0, 0.0),
        ([np.array([0, 3, 3], np.int64)], 0.0, 3.0),
        ([np.array([True, False])], 0.0, 1.0),
        ([np.full(5, 1e-40, np.float32)], 0.0, 1e-40),
        ([np.full(5, 3e38, np.float32), np.ones(5, np.float16)], 0.0, 3e38),
    ],
)
def test_degenerate_data_has_a_range(arrays, low, high, method, symmetric) -> None:
    histogram = Histogram()
    for array in arrays:
        histogram.observe(array)
    integers = IntegerFormat(8, symmetric=symmetric, signed=False)
    found_low, found_high = histogram.range(method, integers)
    largest = max(-low, high)
    assert found_low <= 0.0 <= found_high
    assert found_high <= (largest if symmetric else high) * (1 + 1e-6)
    assert found_low >= -largest * (1 + 1e-6)
    if method in ("minmax", "mse"):
        assert max(-found_low, found_high) == pytest.approx(largest, rel=0.07)
    scale, _ = scale_and_zero_point(found_low, found_high, integers)
    assert scale > 0
    assert np.isfinite(scale)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("observer", [Histogram, MinMax, MovingAverage])
def test_not_finite_is_refused(observer, bad) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        observer().observe(np.array([1.0, bad, 2.0], np.float32))


def test_memory_does_not_grow() -> None:
    histogram = Histogram(bins=256)
    for exponent in range(-30, 30):
        histogram.observe(np.float32([10.0**exponent, -(10.0**exponent)]))
    assert histogram.counts.shape == (256,)
    assert histogram.counts.sum() == 120


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_min_max_of_parts_is_that_of_the_whole(axis) -> None:
    data = np.random.default_rng(0).normal(0.3, 1, (12, 5, 7)).astype(np.float32)
    others = None if axis is None else tuple(i for i in range(3) if i != axis % 3)
    observer = MinMax(axis)
    for part in (data[:, :, :], data * 0.5, data[:0]):
        observer.observe(part)
    low, high = observer.range()
    np.testing.assert_array_equal(low, np.minimum(data.min(others), 0))
    np.testing.assert_array_equal(high, np.maximum(data.max(others), 0))
    low, high = observer.range(IntegerFormat(8))
    np.testing.assert_array_equal(high, np.abs(data).max(others))
    np.testing.assert_array_equal(low, -high)


def test_moving_average_is_a_mean_at_first_and_forgets_later() -> None:
    observer = MovingAverage(rate=0.25)
    for top in (1.0, 2.0, 6.0):
        observer.observe(np.float32([-top / 2, top]))
    assert observer.range() == (pytest.approx(-1.5), pytest.approx(3.0))
    for _ in range(40):
        observer.observe(np.float32([0.0, 10.0]))
    assert observer.range() == (pytest.approx(0.0, abs=1e-4), pytest.approx(10.0, rel=1e-4))


@settings(max_examples=50, deadline=None)
@given(st.floats(-100, 0, width=32), st.floats(0, 100, width=32))
def test_scale_and_zero_point_are_those_of_dynamic_quantize_linear(low, high) -> None:
    node = onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])],
        [
            onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, []),
            onnx.helper.make_tensor_value_info("z", onnx.TensorProto.UINT8, []),
        ],
    )
    if high - low < 1e-30:
        return
    scale, zero_point = ReferenceEvaluator(onnx.helper.make_model(graph)).run(
        None, {"x": np.float32([low, high])}
    )
    ours = scale_and_zero_point(low, high)
    np.testing.assert_allclose(ours[0], scale, rtol=1e-6)
    assert abs(int(ours[1]) - int(zero_point)) <= 1


def test_symmetric_scales_have_their_zero_point_in_the_middle() -> None:
    for signed, middle in ((True, 0), (False, 128)):
        scale, zero_point = scale_and_zero_point([-1.0, -2.0], [0.5, 4.0], IntegerFormat(8, signed=signed))
        np.testing.assert_allclose(scale, np.float32([2 / 255, 8 / 255]))
        np.testing.assert_array_equal(zero_point, middle)


def test_a_range_takes_in_what_is_observed_after_it_was_asked_for() -> None:
    histogram = Histogram()
    for width in (1.0, 3.0):
        histogram.observe(np.linspace(0, width, 1000, dtype=np.float32))
        assert histogram.range("mse")[1] == pytest.approx(width, rel=0.05)
