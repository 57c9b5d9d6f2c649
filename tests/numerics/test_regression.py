"""Streaming least squares against the textbook solution."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.numerics.regression import LeastSquares


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_batches_give_the_same_line_as_all_samples_at_once(groups, features, outputs, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(1.0, 2.0, size=(groups, 60, features))
    y = rng.normal(size=(groups, 60, outputs))
    fit = LeastSquares(groups, features, outputs)
    for start in (0, 7, 40):
        end = {0: 7, 7: 40, 40: 60}[start]
        fit.update(x[:, start:end], y[:, start:end])
    weight, bias = fit.solve(np.zeros((groups, features, outputs)), 0.0, intercept=True)
    for group in range(groups):
        design = np.concatenate([x[group], np.ones((60, 1))], axis=1)
        expected = np.linalg.lstsq(design, y[group], rcond=None)[0]
        np.testing.assert_allclose(weight[group], expected[:-1], atol=1e-8)
        np.testing.assert_allclose(bias[group], expected[-1], atol=1e-8)


def test_directions_that_were_not_seen_keep_the_prior():
    fit = LeastSquares(1, 2, 1)
    inputs = np.array([[[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]])
    fit.update(inputs, 3 * inputs[..., :1])
    weight, _ = fit.solve(np.array([[[0.0], [5.0]]]), 1e-6, intercept=False)
    np.testing.assert_allclose(weight[0, :, 0], [3.0, 5.0], atol=1e-4)


def test_damping_draws_to_the_prior():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 50, 3))
    fit = LeastSquares(1, 3, 2)
    fit.update(x, x @ rng.normal(size=(1, 3, 2)))
    prior = rng.normal(size=(1, 3, 2))
    distance = [np.abs(fit.solve(prior, d, intercept=True)[0] - prior).max() for d in (1e-3, 1.0, 1e3)]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 1e-2
