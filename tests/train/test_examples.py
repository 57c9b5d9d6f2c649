"""Examples in memory: their order, what is held out, and what a teacher says to them."""

from __future__ import annotations

import torch

from compress.graph.batch import BatchAxes
from compress.train.examples import Batch, Examples, can_shuffle, joined

ROWS = BatchAxes({"x": 0}, {0: 0})
STEPS = BatchAxes({"x": 1, "state": 1}, {0: 1})
"""Where samples lie in sequences whose first axis is time."""


def _batches(*sizes: int) -> list[Batch]:
    """Return batches whose rows are numbered throughout, with the number as the label."""
    rows = torch.split(torch.arange(sum(sizes)), list(sizes))
    return [Batch({"x": part[:, None].float()}, part) for part in rows]


def _labels(batches: list[Batch]) -> list[int]:
    return [int(label) for batch in batches if batch.labels is not None for label in batch.labels]


def test_an_epoch_shuffles_samples_across_batches_and_drops_what_is_not_full() -> None:
    examples = Examples(_batches(5, 5), batch_size=4, seed=1, axes=ROWS)
    seen = list(examples.epoch(0))
    assert list(map(examples.size, seen)) == [4, 4] and len(examples) == 2
    assert len(set(_labels(seen))) == 8
    assert all((batch.feeds["x"][:, 0] == batch.labels).all() for batch in seen)
    assert _labels(seen) == _labels(list(examples.epoch(0))) != _labels(list(examples.epoch(1)))


def test_batches_may_stay_as_they_come() -> None:
    seen = list(Examples(_batches(2, 3, 4)).epoch(0))
    assert sorted(map(len, (batch.feeds["x"] for batch in seen))) == [2, 3, 4]
    assert sorted(_labels(seen)) == list(range(9))


def test_what_is_held_out_is_not_trained_on() -> None:
    for size in (0, 2):
        train, judge = Examples(_batches(2, 2, 2, 2, 2), batch_size=size, axes=ROWS).split(0.2)
        first, second = (_labels(list(part.in_order())) for part in (train, judge))
        assert len(second) == 2
        assert sorted(first + second) == list(range(10))


def test_rows_of_one_shape_may_share_a_step() -> None:
    assert can_shuffle(_batches(2, 3), ROWS)
    assert not can_shuffle(_batches(2, 3), BatchAxes()), "which axis is the batch must be known"
    assert not can_shuffle([*_batches(2), Batch({"x": torch.zeros(2, 5)}, torch.zeros(2))], ROWS)
    assert not can_shuffle([*_batches(2), Batch({"x": torch.zeros(2, 1)}, torch.zeros(3))], ROWS)


def _steps(count: int, scale: float = 1.0) -> Batch:
    x = torch.arange(5.0)[:, None] + 10 * torch.arange(count)
    return Batch({"x": x, "state": x[:1], "scale": torch.tensor(scale)}, x.long())


def test_samples_are_taken_along_the_batch_axis_and_what_they_share_is_kept() -> None:
    batches = [_steps(3), _steps(4)]
    assert can_shuffle(batches, STEPS)
    examples = Examples(batches, batch_size=2, axes=STEPS)
    assert len(examples) == 3 and examples.size(joined(batches, STEPS)) == 7
    for batch in examples.epoch(0):
        assert batch.feeds["x"].shape == (5, 2) and batch.feeds["state"].shape == (1, 2)
        assert batch.labels is not None and (batch.feeds["x"] == batch.labels).all()
        assert batch.feeds["scale"] == 1
    assert not can_shuffle([_steps(3), _steps(3, scale=2.0)], STEPS), "what samples share must not differ"


def test_batches_without_a_known_axis_are_never_cut() -> None:
    batch = Batch({"x": torch.zeros(4, 2), "edges": torch.zeros(2, 9), "scale": torch.tensor(1.0)})
    assert list(Examples([batch]).in_order()) == [batch]
