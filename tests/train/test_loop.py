"""The training loop: the best epoch is kept, and an interrupted training goes on where it was."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.errors import PassError
from compress.train.examples import Batch, Examples
from compress.train.loop import Plan, train
from compress.train.objective import Objective


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
    plan = Plan(6, functools.partial(torch.optim.SGD, lr=1.0), judge="accuracy")
    outcome = train(module, dict(module.named_parameters()), Objective(), training, held_out, plan, _silent)
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
    training, held_out = Examples(_labelled(6), batch_size=20, seed=1).split(0.2)

    def run(report: Any, checkpoint: Path | None) -> dict[str, torch.Tensor]:
        module = _Net()
        plan = Plan(4, functools.partial(torch.optim.AdamW, lr=0.01), seed=1, checkpoint=checkpoint)
        train(module, dict(module.named_parameters()), Objective(), training, held_out, plan, report)
        return module.state_dict()

    whole = run(_silent, None)
    path = tmp_path / "training.pt"
    with pytest.raises(KeyboardInterrupt):
        run(_killed, path)
    seen = []
    resumed = run(lambda epoch, *_: seen.append(epoch), path)
    assert min(seen) == 2
    assert not path.exists()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_decay_spares_biases_and_zeros_stay_zero() -> None:
    module = _Net()
    with torch.no_grad():
        module.body[0].weight[0] = 0.0
    groups: list[Any] = []

    def make(parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
        groups.extend(parameters)
        return torch.optim.AdamW(parameters, lr=0.01)

    examples = Examples(_labelled(4))
    weights = dict(module.named_parameters())
    train(module, weights, Objective(), examples, Examples([]), Plan(1, make), _silent)
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert all(weight.dim() <= 1 for weight in groups[1]["params"])
    assert not module.body[0].weight[0].any() and module.body[0].weight[1].all()


def test_a_loss_that_is_not_finite_is_told() -> None:
    module = _Net()
    weights, examples = dict(module.named_parameters()), Examples(_labelled(2))
    plan = Plan(50, functools.partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(PassError, match=r"epoch \d+, step \d+: the loss is .*lower learning_rate"):
        train(module, weights, Objective(), examples, Examples([]), plan, _silent)
