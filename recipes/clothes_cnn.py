"""A small convolutional network that tells ten kinds of clothes apart, trained here in seconds.

The photographs are 10,000 of Fashion-MNIST's (Zalando SE, MIT; see clothes.LICENSE), halved to 14x14 pixels
of 16 greys: the first 8,000 of its training part, and the first 2,000 of its test part.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

PHOTOGRAPHS = Path(__file__).with_name("clothes.npz")
TRAINING, CALIBRATING = 8000, 4096
"""Leading photographs that train, and how many of them calibrate; those behind evaluate."""
EPOCHS = 6
BATCH = 64


def photographs() -> tuple[np.ndarray, np.ndarray]:
    """Return photographs [10000, 1, 14, 14] in 0 to 1, and labels [10000]."""
    with np.load(PHOTOGRAPHS) as stored:
        pairs, labels = stored["photographs"], stored["labels"]
    greys = np.stack([pairs >> 4, pairs & 15], axis=-1).reshape(-1, 1, 14, 14)
    return greys.astype(np.float32) / 15, labels.astype(np.int64)


class ClothesCNN(nn.Module):
    """Three convolutions with BatchNormalization and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *self._block(1, 16), nn.MaxPool2d(2), *self._block(16, 32), *self._block(32, 32, stride=2)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))

    @staticmethod
    def _block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, 10] of photographs [batch, 1, 14, 14]."""
        return self.head(self.features(image))


def build() -> nn.Module:
    """Train the network; the same weights every time."""
    torch.manual_seed(0)
    x, y = (torch.from_numpy(array[:TRAINING]) for array in photographs())
    model = ClothesCNN()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, EPOCHS * -(-TRAINING // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAINING).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _batches(rows: slice) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    x, y = (array[rows] for array in photographs())
    for start in range(0, len(x), BATCH):
        yield {"image": x[start : start + BATCH]}, y[start : start + BATCH]


def calibration() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield training photographs and labels, which fine-tuning takes too."""
    return _batches(slice(0, CALIBRATING))


def evaluation() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield photographs and labels that training has not seen."""
    return _batches(slice(TRAINING, None))
