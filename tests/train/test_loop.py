"""The training loop: the best epoch is kept, and an interrupted training goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.errors import PassError
from compress.graph.batch import BatchAxes
from compress.train.examples import Batch, Examples
from compress.train.loop import optimizer, train
from compress.train.objective import Objective
from compress.train.settings import ResolvedTraining


class _Net(nn.Module):
    """A network with statistics and dropout, called as a graph is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4)
        )

    def forward(self, feeds: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (self.body(feeds["x"]),)


def _labelled(count: int) -> list[Batch]:
    """Return batches of rows whose class is the largest pair of numbers."""
    random = torch.Generator().manual_seed(0)
    rows = [torch.randn(16, 8, generator=random) for _ in range(count)]
    return [Batch({"x": x}, x.reshape(16, 4, 2).sum(2).argmax(1)) for x in rows]


def test_the_best_epoch_is_kept() -> None:
    module = _Net()
    examples = Examples(_labelled(6))
    training, held_out = examples.split(0.34)
    how = ResolvedTraining(epochs=6, batch_size=0, optimizer="sgd", learning_rate=1.0, stop_on="accuracy")
    outcome = train(module, dict(module.named_parameters()), Objective(), training, held_out, how, _silent)
    with torch.no_grad():
        right = [
            (module(batch.feeds)[0].argmax(1) == batch.labels).float().mean() for batch in held_out.batches
        ]
    assert float(torch.stack(right).mean()) == pytest.approx(-min(outcome.scores))
    assert outcome.scores[outcome.kept] == min(outcome.scores)


def _silent(epoch: int, step: int, loss: float, score: float | None) -> None:
    pass


def _killed(epoch: int, step: int, loss: float, score: float | None) -> None:
    if epoch == 2 and step == 1:
        raise KeyboardInterrupt


def test_a_killed_training_goes_on_where_it_was(tmp_path: Path) -> None:
    training, held_out = Examples(
        _labelled(6), batch_size=20, seed=1, axes=BatchAxes({"x": 0}, {0: 0})
    ).split(0.2)

    def run(report: Any, checkpoint: str) -> dict[str, torch.Tensor]:
        module = _Net()
        how = ResolvedTraining(epochs=4, batch_size=20, learning_rate=0.01, seed=1, checkpoint=checkpoint)
        train(module, dict(module.named_parameters()), Objective(), training, held_out, how, report)
        return module.state_dict()

    whole = run(_silent, "")
    path = tmp_path / "training.pt"
    with pytest.raises(KeyboardInterrupt):
        run(_killed, str(path))
    seen = []
    resumed = run(lambda epoch, *_: seen.append(epoch), str(path))
    assert min(seen) == 2
    assert not path.exists()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_decay_spares_biases_and_zeros_stay_zero() -> None:
    module = _Net()
    with torch.no_grad():
        module.body[0].weight[0] = 0.0
    examples, weights = Examples(_labelled(4)), dict(module.named_parameters())
    how = ResolvedTraining(epochs=1, batch_size=0, learning_rate=0.01)
    groups = optimizer(weights.values(), how).param_groups
    train(module, weights, Objective(), examples, Examples([]), how, _silent)
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert all(weight.dim() <= 1 for weight in groups[1]["params"])
    assert not module.body[0].weight[0].any() and module.body[0].weight[1].all()


def test_a_loss_that_is_not_finite_is_told() -> None:
    module = _Net()
    weights, examples = dict(module.named_parameters()), Examples(_labelled(2))
    how = ResolvedTraining(epochs=50, batch_size=0, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(PassError, match=r"epoch \d+, step \d+: the loss is .*lower learning_rate"):
        train(module, weights, Objective(), examples, Examples([]), how, _silent)
