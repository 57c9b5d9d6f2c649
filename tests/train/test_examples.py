"""Examples in memory: their order, what is held out, and what a teacher says to them."""

from __future__ import annotations

import torch

from compress.train.examples import Batch, Examples, can_shuffle


def _batches(*sizes: int) -> list[Batch]:
    """Return batches whose rows are numbered throughout, with the number as the label."""
    rows = torch.split(torch.arange(sum(sizes)), list(sizes))
    return [Batch({"x": part[:, None].float()}, part) for part in rows]


def _labels(batches: list[Batch]) -> list[int]:
    return [int(label) for batch in batches if batch.labels is not None for label in batch.labels]


def test_an_epoch_shuffles_samples_across_batches_and_drops_what_is_not_full() -> None:
    examples = Examples(_batches(5, 5), batch_size=4, seed=1)
    seen = list(examples.epoch(0))
    assert [len(batch) for batch in seen] == [4, 4] and len(examples) == 2
    assert len(set(_labels(seen))) == 8
    assert all((batch.feeds["x"][:, 0] == batch.labels).all() for batch in seen)
    assert _labels(seen) == _labels(list(examples.epoch(0))) != _labels(list(examples.epoch(1)))


def test_batches_may_stay_as_they_come() -> None:
    seen = list(Examples(_batches(2, 3, 4)).epoch(0))
    assert sorted(len(batch) for batch in seen) == [2, 3, 4]
    assert sorted(_labels(seen)) == list(range(9))


def test_what_is_held_out_is_not_trained_on() -> None:
    for size in (0, 2):
        train, judge = Examples(_batches(2, 2, 2, 2, 2), batch_size=size).split(0.2)
        first, second = (_labels(list(part.in_order())) for part in (train, judge))
        assert len(second) == 2
        assert sorted(first + second) == list(range(10))


def test_rows_of_one_shape_may_share_a_step() -> None:
    assert can_shuffle(_batches(2, 3))
    assert not can_shuffle([*_batches(2), Batch({"x": torch.zeros(2, 5)}, torch.zeros(2))])
    assert not can_shuffle([Batch({"x": torch.zeros(2, 1), "scale": torch.zeros(3)})])
