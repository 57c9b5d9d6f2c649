"""Settings of a training: what a pass hands down, and what is left to `auto` no longer."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from compress.passes import Finetune, Qat
from compress.train.settings import ResolvedTraining, Training


@pytest.mark.parametrize("kind", [Finetune, Qat])
def test_a_pass_hands_down_the_settings_of_its_training_alone(kind: type[Finetune] | type[Qat]) -> None:
    settings = Training.of(kind(epochs=3, learning_rate=0.2, distill="kl", include=("body*",)))
    assert settings == Training(epochs=3, learning_rate=0.2, distill="kl")
    assert type(settings) is Training


@pytest.mark.parametrize("left", [{"batch_size": "auto"}, {"learning_rate": "auto"}, {}])
def test_resolved_settings_leave_nothing_open(left: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"batch_size|learning_rate"):
        ResolvedTraining(**{"batch_size": 8, **left})  # type: ignore[arg-type]
