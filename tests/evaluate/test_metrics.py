"""Metrics against scikit-learn and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity

from compress import evaluate
from compress.data import Feeds
from compress.errors import DataError, InputError
from compress.evaluate import METRICS
from compress.recipe import METRICS as NAMES


def identity(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"]]


def shifted(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"] + np.float32(0.1)]


def scores(rows: int = 64, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, classes)).astype(np.float32), rng.integers(0, classes, rows)


def test_recipes_and_evaluation_know_the_same_metrics() -> None:
    assert set(METRICS) == set(NAMES)


def test_metrics_agree_with_scikit_learn() -> None:
    x, y = scores()
    batches = [({"x": x[:40]}, y[:40]), ({"x": x[40:]}, y[40:])]  # of different sizes: means must weigh them
    measured = {name: evaluate.measure(name, identity, identity, batches) for name in ("accuracy", "top5")}
    assert measured["accuracy"] == pytest.approx(accuracy_score(y, x.argmax(1)))
    assert measured["top5"] == pytest.approx(top_k_accuracy_score(y, x, k=5))
    probabilities = np.exp(x.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    perplexity = evaluate.measure("perplexity", identity, identity, batches)
    assert math.log(perplexity) == pytest.approx(log_loss(y, probabilities))


def test_regression_metrics_agree_with_scikit_learn() -> None:
    x, _ = scores()
    target = np.roll(x, 1)
    batches = [({"x": x}, target)]
    assert evaluate.measure("mse", identity, identity, batches) == pytest.approx(
        mean_squared_error(target, x)
    )
    assert evaluate.measure("mae", identity, identity, batches) == pytest.approx(
        np.abs(x - target).mean(), 1e-6
    )
    cosine = np.diag(cosine_similarity(x, target)).mean()
    assert evaluate.measure("cosine", identity, identity, batches) == pytest.approx(cosine, rel=1e-5)


def test_without_labels_the_original_is_the_target() -> None:
    x, _ = scores()
    assert evaluate.measure("mse", shifted, identity, [({"x": x}, None)]) == pytest.approx(0.01, rel=1e-4)


def test_perplexity_without_labels_predicts_the_next_token() -> None:
    tokens = np.array([[0, 1, 2, 3]])

    def knows(feeds: Feeds) -> list[np.ndarray]:
        return [np.eye(4, dtype=np.float32)[(feeds["ids"] + 1) % 4] * 100]

    assert evaluate.measure("perplexity", knows, knows, [({"ids": tokens}, None)]) == pytest.approx(1.0)


def test_accuracy_without_labels_is_refused() -> None:
    with pytest.raises(DataError, match=r"batch 0: accuracy needs labels"):
        evaluate.measure("accuracy", identity, identity, [({"x": np.zeros((2, 3))}, None)])


@pytest.mark.parametrize("labels", [np.zeros(5), np.zeros((2, 1))])
def test_labels_that_do_not_fit_are_named(labels: np.ndarray) -> None:
    batches = [({"x": np.zeros((2, 3))}, labels)]
    with pytest.raises(DataError, match=r"batch 0: accuracy: labels \(.*\) do not fit outputs \(2, 3\)"):
        evaluate.measure("accuracy", identity, identity, batches)


@pytest.mark.parametrize("name", ["mse", "mae", "cosine", "top5"])
def test_no_metric_broadcasts(name: str) -> None:
    batches = [({"x": np.zeros((8, 1))}, np.zeros(8) if name != "top5" else np.zeros((8, 1)))]
    with pytest.raises(DataError, match=rf"batch 0: {name}: labels \(.*\) do not fit outputs \(8, 1\)"):
        evaluate.measure(name, identity, identity, batches)


def test_accuracy_of_outputs_that_are_labels() -> None:
    integers, words = np.array([3, 1, 2, 2]), np.array(["cat", "dog", "cat", "cat"], object)
    assert evaluate.measure("accuracy", identity, identity, [({"x": integers}, [3, 1, 0, 2])]) == 0.75
    assert evaluate.measure("accuracy", identity, identity, [({"x": words}, ["cat"] * 4)]) == 0.75


def test_a_metric_that_is_not_finite_names_the_batch() -> None:
    x, _ = scores(4)
    batches = [({"x": x}, x), ({"x": x * np.float32(np.nan)}, x)]
    with pytest.raises(InputError, match=r"batch 1: mse is nan: .* in its outputs"):
        evaluate.measure("mse", identity, identity, batches)
    with pytest.raises(InputError, match=r"batch 0: mae is inf: .* in its labels"):
        evaluate.measure("mae", identity, identity, [({"x": x}, x * np.float32(np.inf))])
    with pytest.raises(InputError, match="perplexity is past the range"):
        evaluate.measure("perplexity", identity, identity, [({"x": x * 1e4}, x.argmin(-1))])
    with pytest.raises(DataError, match="no batch has a label that counts"):
        evaluate.measure("perplexity", identity, identity, [({"x": x}, np.full(4, -100))])


def test_an_output_that_is_no_array_has_no_named_metric() -> None:
    with pytest.raises(InputError, match="batch 0: mse: the first output is no array"):
        evaluate.measure("mse", lambda feeds: [[feeds["x"]]], identity, [({"x": np.zeros(2)}, None)])  # type: ignore[list-item]


@pytest.mark.parametrize(("returned", "numbers"), [(0.5, {"f": 0.5}), ({"a": 1, "b": 2.0}, {"a": 1, "b": 2})])
def test_a_users_metric_returns_a_number_or_a_dict(returned: object, numbers: dict[str, float]) -> None:
    assert evaluate.measure_with(lambda run: returned, "f", identity) == numbers


def test_a_users_metric_that_returns_something_else_is_refused() -> None:
    for value in (10**400, 10**5000, {"a": 1.0, "b": 10**400}):
        with pytest.raises(InputError, match=r"metric f: (b: )?returned a number past the range"):
            evaluate.measure_with(lambda run, value=value: value, "f", identity)
    with pytest.raises(InputError, match="metric f: returned inf; all outputs of the model are finite"):
        evaluate.measure_with(lambda run: math.inf, "f", identity)
    with pytest.raises(InputError, match=r"metric f: returned nan; outputs of the model .* in batch 1 that"):
        evaluate.measure_with(
            lambda run: sum(run({"x": np.array([x])})[0][0] for x in (1, np.nan)), "f", identity
        )
    with pytest.raises(InputError, match="metric f: returned 'good'"):
        evaluate.measure_with(lambda run: "good", "f", identity)
    with pytest.raises(InputError, match=r"metric f: returned \{\}"):
        evaluate.measure_with(lambda run: {}, "f", identity)
