"""Codebooks: never worse than even levels, better with more entries, the same every time."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.numerics.affine import quantize
from compress.numerics.codebook import palettize
from compress.numerics.formats import CodebookFormat, IntegerFormat
from compress.numerics.granularity import PerAxis


def error(rows, *book):
    return (palettize(rows, CodebookFormat(*book)).restore() - rows).square().sum(1)


def drawn(kind, rows, elements, seed):
    random = np.random.default_rng(seed)
    values = {
        "normal": random.standard_normal,
        "heavy": lambda size: random.standard_t(2, size),
        "few": lambda size: random.integers(-2, 3, size),
        "pruned": lambda size: random.standard_normal(size) * (random.random(size) < 0.2),
    }[kind]((rows, elements))
    return torch.from_numpy(np.asarray(values, np.float32))


KINDS = st.sampled_from(["normal", "heavy", "few", "pruned"])


@settings(deadline=None, max_examples=40)
@given(kind=KINDS, rows=st.integers(1, 4), elements=st.integers(1, 300), bits=st.integers(2, 6),
       seed=st.integers(0, 999))  # fmt: skip
def test_never_worse_than_evenly_spaced_levels(kind, rows, elements, bits, seed):
    values = drawn(kind, rows, elements, seed)
    found = palettize(values, CodebookFormat(1 << bits))
    assert found.codes.shape == (rows, elements)
    assert found.codebook.shape == (rows, 1 << bits, 1)
    for symmetric in (True, False):
        even = quantize(values, IntegerFormat(bits, PerAxis(0), symmetric=symmetric)).dequantize()
        limit = (even - values).square().sum(1)
        assert (error(values, 1 << bits) <= limit * 1.02 + 1e-6).all()


@settings(deadline=None, max_examples=20)
@given(kind=KINDS, elements=st.integers(4, 200), dimensions=st.integers(1, 4), seed=st.integers(0, 99))
def test_more_entries_are_closer(kind, elements, dimensions, seed):
    values = drawn(kind, 2, elements * dimensions, seed)
    errors = [error(values, entries, dimensions).sum() for entries in (2, 8, 32, 256)]
    assert all(more <= 1.001 * fewer + 1e-6 for fewer, more in itertools.pairwise(errors))
    if elements <= 32:
        assert errors[-1] < 1e-5 * values.square().sum() + 1e-9


@pytest.mark.parametrize(("entries", "distortion"), [(2, 0.3634), (4, 0.1175), (8, 0.03454), (16, 0.009497)])
def test_distortion_of_a_gaussian_source(entries, distortion):
    """The optimal quantizers of Max, "Quantizing for minimum distortion" (1960), table I."""
    values = drawn("normal", 1, 200_000, 0)
    assert float(error(values, entries)) / 200_000 == pytest.approx(distortion, rel=0.02)


def test_vectors_beat_scalars_at_the_same_bits():
    values = drawn("normal", 1, 40_000, 0)
    assert error(values, 256, 4) < 0.9 * error(values, 4)


def test_importance_moves_the_entries():
    values, importance = drawn("normal", 1, 400, 0), torch.ones(1, 400)
    importance[:, :40] = 1000
    plain, weighted = (palettize(values, CodebookFormat(8), each).restore() for each in (None, importance))
    assert (weighted - values)[:, :40].norm() < 0.95 * (plain - values)[:, :40].norm()


@pytest.mark.parametrize("dimensions", [1, 2])
def test_pruned_weights_stay_zero(dimensions):
    values = drawn("pruned", 2, 400, 0)
    values = values.reshape(2, -1, dimensions)
    values[:, ::2] = 0
    values = values.reshape(2, -1)
    restored = palettize(values, CodebookFormat(16, dimensions)).restore()
    whole = (values.reshape(2, -1, dimensions) == 0).all(2).repeat_interleave(dimensions, 1)
    assert (restored[whole] == 0).all()


def test_the_same_every_time():
    values = drawn("heavy", 3, 900, 0)
    one, two = (palettize(values, CodebookFormat(16, 3)) for _ in range(2))
    assert torch.equal(one.codes, two.codes)
    assert torch.equal(one.codebook, two.codebook)


@pytest.mark.parametrize("values", [torch.zeros(2, 6), torch.full((1, 8), -3.5), torch.tensor([[7.0, 7.0]])])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_weights_that_are_all_equal(values, dimensions):
    torch.testing.assert_close(palettize(values, CodebookFormat(16, dimensions)).restore(), values)


@pytest.mark.parametrize(
    ("values", "book", "message"),
    [
        (torch.ones(1, 5), CodebookFormat(4, 2), "5 weights do not divide into vectors of 2"),
        (torch.tensor([[1.0, float("nan")]]), CodebookFormat(4), r"nan at index \[0, 1\]"),
    ],
)
def test_refusals(values, book, message):
    with pytest.raises(ValueError, match=message):
        palettize(values, book)
