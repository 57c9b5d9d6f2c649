"""Streaming least squares against the textbook solution."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.numerics.regression import LeastSquares, cross_validated


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_batches_give_the_same_line_as_all_samples_at_once(groups, features, outputs, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(1.0, 2.0, size=(groups, 60, features))
    y = rng.normal(size=(groups, 60, outputs))
    fit = LeastSquares(groups, features, outputs)
    for start in (0, 7, 40):
        end = {0: 7, 7: 40, 40: 60}[start]
        fit.observe(x[:, start:end], y[:, start:end])
    weight, bias = fit.solve(np.zeros((groups, features, outputs)), 0.0, intercept=True)
    for group in range(groups):
        design = np.concatenate([x[group], np.ones((60, 1))], axis=1)
        expected = np.linalg.lstsq(design, y[group], rcond=None)[0]
        np.testing.assert_allclose(weight[group], expected[:-1], atol=1e-8)
        np.testing.assert_allclose(bias[group], expected[-1], atol=1e-8)


def test_directions_that_were_not_seen_keep_the_prior():
    fit = LeastSquares(1, 2, 1)
    inputs = np.array([[[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]])
    fit.observe(inputs, 3 * inputs[..., :1])
    weight, _ = fit.solve(np.array([[[0.0], [5.0]]]), 1e-6, intercept=False)
    np.testing.assert_allclose(weight[0, :, 0], [3.0, 5.0], atol=1e-4)


def test_damping_draws_to_the_prior():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 50, 3))
    fit = LeastSquares(1, 3, 2)
    fit.observe(x, x @ rng.normal(size=(1, 3, 2)))
    prior = rng.normal(size=(1, 3, 2))
    distance = [np.abs(fit.solve(prior, d, intercept=True)[0] - prior).max() for d in (1e-3, 1.0, 1e3)]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 1e-2


def halves(groups, features, outputs, samples, noise):
    """Two fits of samples of one line with noise, the line, and all samples."""
    rng = np.random.default_rng(0)
    line = rng.normal(size=(groups, features, outputs))
    fits, x, y = [], [], []
    for _ in range(2):
        x.append(rng.normal(1.0, 1.0, size=(groups, samples, features)))
        y.append(x[-1] @ line + 2.0 + noise * rng.normal(size=(groups, samples, outputs)))
        fits.append(LeastSquares(groups, features, outputs))
        fits[-1].observe(x[-1], y[-1])
    return fits, line, np.concatenate(x, 1), np.concatenate(y, 1)


def test_error_is_the_mean_squared_error_but_for_a_constant():
    fits, line, x, y = halves(2, 3, 4, 20, 1.0)
    whole = fits[0] + fits[1]
    constant = np.square(y).sum() / 40
    for bias in (np.zeros((2, 4)), np.ones((2, 4))):
        expected = np.square(x @ line + bias[:, None] - y).sum() / 40
        np.testing.assert_allclose(whole.error(line, bias) + constant, expected)


def test_cross_validation_fits_as_closely_as_the_samples_allow():
    zero, none = np.zeros((1, 3, 2)), np.zeros((1, 2))
    distance = []
    for samples in (4, 4000):
        fits, line, _, _ = halves(1, 3, 2, samples, 1.0)
        weight, bias = cross_validated(fits, zero, none, intercept=True)
        distance.append(np.abs(weight - line).max() + np.abs(bias - 2).max())
    assert distance[1] < 0.1 < distance[0]


def test_cross_validation_leaves_what_no_fit_makes_better():
    """What one half would learn of the noise is wrong on the other, where it has the other sign."""
    rng = np.random.default_rng(0)
    x, line, noise = (rng.normal(size=(1, *shape)) for shape in ((30, 3), (3, 2), (30, 2)))
    fits = [LeastSquares(1, 3, 2), LeastSquares(1, 3, 2)]
    for fit, sign in zip(fits, (1, -1), strict=True):
        fit.observe(x, x @ line + sign * noise)
    assert cross_validated(fits, line, np.zeros((1, 2)), intercept=True) is None
    assert cross_validated(fits, line + 1, np.zeros((1, 2)), intercept=True) is not None
