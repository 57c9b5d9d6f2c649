"""PP-OCRv4's text reader (PaddlePaddle's ONNX: weights in Constant nodes, convolutions, attention,
CTC over 6625 characters; 2.7 M weights), Apache-2.0.

Evaluation: 120 lines of the background news drawn with seed 0. Calibration: lines of the other news,
seed 1, eight at a time, padded with white.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import news
import numpy as np
import text_lines

from compress.source import locate

HEIGHT = 48
STRIDE = 8
EVALUATED = 120
CALIBRATED = 64
BATCH = 8
CHARSET = string.ascii_letters + string.digits + " .,;:!?'\"()-"


@cache
def _characters() -> list[str]:
    """Return the characters of the classes after the blank, as the file lists them; the space is last."""
    import onnx

    path = locate("package:rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", Path())
    properties = {each.key: each.value for each in onnx.load(path).metadata_props}
    return [*properties["character"].splitlines(), " "]


def _feeds(pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return x float32 [batch, 3, 48, width] in [-1, 1]."""
    gray = text_lines.padded(pictures, STRIDE)[:, None]
    return {"x": np.ascontiguousarray(np.repeat(gray, 3, axis=1))}


def _lines() -> list[text_lines.Line]:
    return text_lines.lines(EVALUATED, news.evaluation_text(), CHARSET, 0, HEIGHT)


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield lines of the other news."""
    drawn = text_lines.lines(CALIBRATED, news.calibration_text(), CHARSET, 1, HEIGHT)
    pictures = [picture for picture, _ in drawn]
    return (_feeds(pictures[start : start + BATCH]) for start in range(0, CALIBRATED, BATCH))


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield the lines of the background news one by one."""
    return (_feeds([picture]) for picture, _ in _lines())


def metric(run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> dict[str, float]:
    """Return the share of characters read right."""

    def read(picture: np.ndarray) -> str:
        return text_lines.collapse(run(_feeds([picture]))[0][0].argmax(-1), _characters())

    return text_lines.accuracy(_lines(), read)
