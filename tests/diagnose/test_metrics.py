"""Metrics against scikit-learn and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity

from compress.data import Feeds
from compress.diagnose import metrics
from compress.errors import DataError, InputError
from compress.results import METRICS


def identity(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"]]


def shifted(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"] + np.float32(0.1)]


def scores(rows: int = 64, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, classes)).astype(np.float32), rng.integers(0, classes, rows)


def test_recipes_and_evaluation_know_the_same_metrics() -> None:
    assert set(metrics.MEANS) == set(METRICS)


def test_metrics_agree_with_scikit_learn() -> None:
    x, y = scores()
    batches = [({"x": x[:40]}, y[:40]), ({"x": x[40:]}, y[40:])]  # of different sizes: means must weigh them
    measured = {name: metrics.measure(name, identity, identity, batches) for name in ("accuracy", "top5")}
    assert measured["accuracy"] == pytest.approx(accuracy_score(y, x.argmax(1)))
    assert measured["top5"] == pytest.approx(top_k_accuracy_score(y, x, k=5))
    probabilities = np.exp(x.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    perplexity = metrics.measure("perplexity", identity, identity, batches)
    assert math.log(perplexity) == pytest.approx(log_loss(y, probabilities))


def test_regression_metrics_agree_with_scikit_learn() -> None:
    x, _ = scores()
    target = np.roll(x, 1)
    batches = [({"x": x}, target)]
    assert metrics.measure("mse", identity, identity, batches) == pytest.approx(mean_squared_error(target, x))
    assert metrics.measure("mae", identity, identity, batches) == pytest.approx(
        np.abs(x - target).mean(), 1e-6
    )
    cosine = np.diag(cosine_similarity(x, target)).mean()
    assert metrics.measure("cosine", identity, identity, batches) == pytest.approx(cosine, rel=1e-5)


def test_without_labels_the_original_is_the_target() -> None:
    x, _ = scores()
    assert metrics.measure("mse", shifted, identity, [({"x": x}, None)]) == pytest.approx(0.01, rel=1e-4)


def test_perplexity_without_labels_predicts_the_next_token() -> None:
    tokens = np.array([[0, 1, 2, 3]])

    def knows(feeds: Feeds) -> list[np.ndarray]:
        return [np.eye(4, dtype=np.float32)[(feeds["ids"] + 1) % 4] * 100]

    assert metrics.measure("perplexity", knows, knows, [({"ids": tokens}, None)]) == pytest.approx(1.0)


def test_accuracy_without_labels_is_refused() -> None:
    with pytest.raises(DataError, match=r"batch 0: accuracy needs labels"):
        metrics.measure("accuracy", identity, identity, [({"x": np.zeros((2, 3))}, None)])


@pytest.mark.parametrize("labels", [np.zeros(5), np.zeros((2, 1))])
def test_labels_that_do_not_fit_are_named(labels: np.ndarray) -> None:
    batches = [({"x": np.zeros((2, 3))}, labels)]
    with pytest.raises(DataError, match=r"batch 0: accuracy: labels \(.*\) do not fit outputs \(2, 3\)"):
        metrics.measure("accuracy", identity, identity, batches)


@pytest.mark.parametrize("name", ["mse", "mae", "cosine", "top5"])
def test_no_metric_broadcasts(name: str) -> None:
    batches = [({"x": np.zeros((8, 1))}, np.zeros(8) if name != "top5" else np.zeros((8, 1)))]
    with pytest.raises(DataError, match=rf"batch 0: {name}: labels \(.*\) do not fit outputs \(8, 1\)"):
        metrics.measure(name, identity, identity, batches)


def test_accuracy_of_outputs_that_are_labels() -> None:
    integers, words = np.array([3, 1, 2, 2]), np.array(["cat", "dog", "cat", "cat"], object)
    assert metrics.measure("accuracy", identity, identity, [({"x": integers}, [3, 1, 0, 2])]) == 0.75
    assert metrics.measure("accuracy", identity, identity, [({"x": words}, ["cat"] * 4)]) == 0.75


def test_a_metric_that_is_not_finite_names_the_batch() -> None:
    x, _ = scores(4)
    batches = [({"x": x}, x), ({"x": x * np.float32(np.nan)}, x)]
    with pytest.raises(InputError, match=r"batch 1: mse is nan: .* in its outputs"):
        metrics.measure("mse", identity, identity, batches)
    with pytest.raises(InputError, match=r"batch 0: mae is inf: .* in its labels"):
        metrics.measure("mae", identity, identity, [({"x": x}, x * np.float32(np.inf))])
    with pytest.raises(InputError, match="perplexity is past the range"):
        metrics.measure("perplexity", identity, identity, [({"x": x * 1e4}, x.argmin(-1))])
    with pytest.raises(DataError, match="no batch has a label that counts"):
        metrics.measure("perplexity", identity, identity, [({"x": x}, np.full(4, -100))])


def test_an_output_that_is_no_array_has_no_named_metric() -> None:
    with pytest.raises(InputError, match="batch 0: mse: the first output is no array"):
        metrics.measure("mse", lambda feeds: [[feeds["x"]]], identity, [({"x": np.zeros(2)}, None)])  # type: ignore[list-item]


@pytest.mark.parametrize(("returned", "numbers"), [(0.5, {"f": 0.5}), ({"a": 1, "b": 2.0}, {"a": 1, "b": 2})])
def test_a_users_metric_returns_a_number_or_a_dict(returned: object, numbers: dict[str, float]) -> None:
    assert metrics.measure_with(lambda run: returned, "f", identity) == numbers


def test_a_users_metric_that_returns_something_else_is_refused() -> None:
    for value in (10**400, 10**5000, {"a": 1.0, "b": 10**400}):
        with pytest.raises(InputError, match=r"metric f: (b: )?returned a number past the range"):
            metrics.measure_with(lambda run, value=value: value, "f", identity)
    with pytest.raises(InputError, match="metric f: returned inf; all outputs of the model are finite"):
        metrics.measure_with(lambda run: math.inf, "f", identity)
    with pytest.raises(InputError, match=r"metric f: returned nan; outputs of the model .* in batch 1 that"):
        metrics.measure_with(
            lambda run: sum(run({"x": np.array([x])})[0][0] for x in (1, np.nan)), "f", identity
        )
    with pytest.raises(InputError, match="metric f: returned 'good'"):
        metrics.measure_with(lambda run: "good", "f", identity)
    with pytest.raises(InputError, match=r"metric f: returned \{\}"):
        metrics.measure_with(lambda run: {}, "f", identity)


def test_the_loss_of_a_share_has_the_interval_of_matched_pairs() -> None:
    """Agresti and Min: half a sample more in each of the four outcomes."""
    labels = np.zeros(40, int)
    right, wrong = np.eye(2, dtype=np.float32)
    theirs = np.array([right] * 36 + [wrong] * 4)
    ours = np.array([right] * 30 + [wrong] * 6 + [right] + [wrong] * 3)  # six lost, one won

    def run(feeds: Feeds) -> list[np.ndarray]:
        return [ours[feeds["x"]]]

    def original(feeds: Feeds) -> list[np.ndarray]:
        return [theirs[feeds["x"]]]

    batches = [({"x": np.arange(25)}, labels[:25]), ({"x": np.arange(25, 40)}, labels[25:])]
    lost = metrics.loss("accuracy", run, original, batches)
    assert (lost.original, lost.samples) == (0.9, 40)
    assert lost.points == pytest.approx(5 / 40)
    variance = ((6 + 1 + 1) - 5**2 / 42) / 41 / 42
    assert lost.high - lost.points == pytest.approx(1.96 * math.sqrt(variance))
    assert lost.points - lost.low == pytest.approx(1.96 * math.sqrt(variance))
    none = metrics.loss("accuracy", original, original, batches)
    assert none.points == 0 and none.high > 0.03, "no difference in forty proves little"
    assert "accuracy loses 0.125 of 0.9 (95 %: " in str(lost)


def test_a_loss_counts_in_the_direction_in_which_a_metric_is_worse() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 5, (3, 9))
    logits = rng.normal(size=(3, 9, 5)).astype(np.float32)

    def run(feeds: Feeds) -> list[np.ndarray]:
        return [logits * np.float32(3)]

    def original(feeds: Feeds) -> list[np.ndarray]:
        return [logits]

    batches = [({"x": tokens}, None)]
    before, after = (metrics.measure("perplexity", each, original, batches) for each in (original, run))
    lost = metrics.loss("perplexity", run, original, batches)
    assert lost.points == pytest.approx(after - before) and lost.points > 0
    assert lost.low < lost.points < lost.high
    with pytest.raises(DataError, match="calibration data, batch 0: accuracy needs labels"):
        metrics.loss("accuracy", run, original, batches)
