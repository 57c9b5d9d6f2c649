"""A small convolutional network on scikit-learn's 1797 handwritten digits, trained here in seconds."""

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

TRAINING = 1297
"""Leading images that train and calibrate; the other 500 evaluate."""
EPOCHS = 12
BATCH = 64


def images() -> tuple[np.ndarray, np.ndarray]:
    """Return images [1797, 1, 8, 8] in 0 to 1, and labels [1797], in a fixed random order."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    return digits.images[order, None].astype(np.float32) / 16, digits.target[order]


class DigitsCNN(nn.Module):
    """Three convolutions with BatchNormalization, one of them residual, and a linear classifier."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )
        self.down = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * width, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, 10] of images [batch, 1, 8, 8]."""
        x = self.stem(image)
        x = torch.relu(x + self.residual(x))
        return self.head(self.down(x))


def build() -> nn.Module:
    """Train the network; the same weights every time."""
    torch.manual_seed(0)
    x, y = (torch.from_numpy(array[:TRAINING]) for array in images())
    model = DigitsCNN()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, EPOCHS * -(-TRAINING // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAINING).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _batches(rows: slice) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    x, y = (array[rows] for array in images())
    for start in range(0, len(x), BATCH):
        yield {"image": x[start : start + BATCH]}, y[start : start + BATCH]


def calibration() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield training images and labels."""
    return _batches(slice(0, TRAINING))


def evaluation() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield images and labels that training has not seen."""
    return _batches(slice(TRAINING, None))
