"""legere: a small text reader (depthwise convolutions, two-way GRU, CTC; 0.36 M weights), MIT.

Evaluation: 120 lines of the background news drawn with seed 0. Calibration: lines of the other news,
seed 1, eight at a time, padded with white.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import news
import numpy as np
import text_lines

from compress.source import locate

if TYPE_CHECKING:
    import onnx

HEIGHT = 32
STRIDE = 4
EVALUATED = 120
CALIBRATED = 64
BATCH = 8


def _part(name: str) -> Any:
    """Import a module of the package without the package's own imports, which need OpenCV."""
    package = types.ModuleType("legere_parts")
    package.__path__ = [str(locate("package:legere", Path()))]
    sys.modules.setdefault("legere_parts", package)
    return importlib.import_module(f"legere_parts.{name}")


def build() -> onnx.ModelProto:
    """Return the network: images float32 [batch, 1, 32, width] in [-1, 1] to logits [batch, steps, classes].

    It is exported here, with torch's older exporter: the newer one cannot take a two-way GRU.
    """
    import onnx
    import torch

    stored = torch.load(locate("package:legere/data/model.pt", Path()), weights_only=True)
    network = _part("model").CompactCRNN()
    network.load_state_dict(stored.get("model", stored.get("state_dict", stored)))
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 1, HEIGHT, 160),),
            path := Path(folder, "legere.onnx"),
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch", 3: "width"}, "logits": {0: "batch", 1: "steps"}},
            opset_version=20,
            dynamo=False,
        )
        return onnx.load(path)


def _feeds(pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {"images": text_lines.padded(pictures, STRIDE)[:, None]}


def _lines() -> list[text_lines.Line]:
    return text_lines.lines(EVALUATED, news.evaluation_text(), _part("charset").CHARSET, 0, HEIGHT)


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield lines of the other news."""
    charset = _part("charset").CHARSET
    drawn = text_lines.lines(CALIBRATED, news.calibration_text(), charset, 1, HEIGHT)
    pictures = [picture for picture, _ in drawn]
    return (_feeds(pictures[start : start + BATCH]) for start in range(0, CALIBRATED, BATCH))


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield the lines of the background news one by one."""
    return (_feeds([picture]) for picture, _ in _lines())


def metric(run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> dict[str, float]:
    """Return the share of characters read right."""
    import torch

    decode = _part("model").ctc_greedy_decode

    def read(picture: np.ndarray) -> str:
        text: str = decode(torch.from_numpy(run(_feeds([picture]))[0]))[0]
        return text

    return text_lines.accuracy(_lines(), read)
