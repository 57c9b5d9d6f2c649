"""Digits as a cheap camera sees them at dusk: scikit-learn's handwritten digits, dim and noisy."""

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

TRAINING = 1197
"""Leading images that train and calibrate; the other 600 evaluate."""
COPIES = 4
"""Times that every image is taken, each with noise of its own."""
NOISE = 0.35
"""Standard deviation of the noise, where white is 1."""
EPOCHS = 6
BATCH = 64


def images(rows: slice, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images [rows * COPIES, 1, 8, 8] and their labels, the same ones every time."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[rows].repeat(COPIES)
    clean = digits.images[order, None] / 16
    noise = np.random.default_rng(seed).normal(scale=NOISE, size=clean.shape)
    return (clean + noise).astype(np.float32), digits.target[order]


def build() -> nn.Module:
    """Train the network; the same weights every time."""
    torch.manual_seed(0)
    x, y = map(torch.from_numpy, images(slice(TRAINING), seed=1))
    model = nn.Sequential(
        *(nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.Conv2d(24, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(4 * 48, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, EPOCHS * -(-len(x) // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _batches(rows: slice, seed: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    x, y = images(rows, seed)
    for start in range(0, len(x), BATCH):
        yield {"input": x[start : start + BATCH]}, y[start : start + BATCH]


def calibration() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield training images and labels."""
    return _batches(slice(TRAINING), seed=1)


def evaluation() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield images and labels that training has not seen."""
    return _batches(slice(TRAINING, None), seed=2)
