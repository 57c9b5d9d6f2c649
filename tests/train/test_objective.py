"""The objective: losses on labels of every shape, and distances from a teacher."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from compress.errors import PassError
from compress.train.examples import Batch
from compress.train.objective import (
    Objective,
    accuracy,
    label_loss,
    labels_of,
    relative_error,
    soft_divergence,
)


def test_labels_of_every_shape_find_their_classes() -> None:
    scores = torch.randn(2, 5, 3, 4)
    labels = torch.randint(0, 5, (2, 3, 4))
    expected = F.cross_entropy(scores, labels)
    torch.testing.assert_close(label_loss(scores, labels), expected)
    torch.testing.assert_close(label_loss(scores.permute(0, 2, 3, 1), labels), expected)
    with pytest.raises(PassError, match=r"labels of shape \[7\] do not fit output"):
        label_loss(scores, torch.zeros(7, dtype=torch.int64))


def test_a_label_beyond_the_classes_is_told() -> None:
    with pytest.raises(PassError, match="label 3 is none of the 3 classes, 0 to 2"):
        label_loss(torch.zeros(2, 3), torch.tensor([0, 3]))


@pytest.mark.parametrize("padding", [-1, -100])
def test_labels_below_zero_are_left_out(padding: int) -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [3.0, 0.0, 1.0], [0.0, 5.0, 1.0]])
    labels = torch.tensor([2, padding, 1])
    assert label_loss(scores, labels) == pytest.approx(F.cross_entropy(scores[[0, 2]], labels[[0, 2]]))
    assert accuracy(scores, labels) == 1.0
    assert label_loss(scores, torch.full((3,), padding)) == 0


def test_numbers_are_compared_by_their_squares() -> None:
    result, labels = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]])
    assert label_loss(result, labels).item() == 2.0
    with pytest.raises(PassError, match="do not fit output"):
        label_loss(result, labels[:1])


def test_probabilities_lose_like_the_scores_they_come_from() -> None:
    scores, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    batch = Batch({"x": scores}, labels)
    expected = Objective()([scores], batch)
    torch.testing.assert_close(Objective(probabilities=True)([scores.softmax(1)], batch), expected)


def test_an_error_is_relative_to_the_power_of_the_target() -> None:
    target = torch.full((8,), 3.0)
    assert relative_error(target + 0.3, target).item() == pytest.approx(0.01)
    assert relative_error(100 * (target + 0.3), 100 * target).item() == pytest.approx(0.01)


def test_soft_classes_are_no_distance_from_themselves_and_shifts() -> None:
    scores = torch.randn(5, 7)
    assert soft_divergence(scores + 2, scores, 2.0).item() == pytest.approx(0, abs=1e-5)
    assert soft_divergence(-scores, scores, 2.0).item() > 0.1


def test_accuracy_counts_the_highest_scores() -> None:
    result = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    assert accuracy(result, torch.tensor([1, 0, 0, 1])) == 0.75


def test_missing_labels_are_told() -> None:
    with pytest.raises(PassError, match=r"no labels.*distill: true"):
        labels_of(Batch({"x": torch.zeros(2)}))
