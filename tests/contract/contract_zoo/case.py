"""What a model of the zoo is: an ONNX model written as text, and feeds for it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

Numbers = Callable[[np.random.Generator], Any]
"""A function that draws the values of one input."""
BATCHES = 4
DOMAINS = {"com.microsoft": 1, "ai.onnx.ml": 3, "local": 1}
"""Operator sets that a model imports where its text names them."""


@dataclass(frozen=True)
class Case:
    """One model of the zoo."""

    name: str
    build: Callable[[], onnx.ModelProto]
    inputs: Mapping[str, Numbers]
    external: bool = False
    """Whether weights lie beside the file, in a folder of their own."""

    def batches(self) -> list[dict[str, Any]]:
        """Return feeds, the same ones at every call."""
        return [
            {name: draw(np.random.default_rng([seed, len(name)])) for name, draw in self.inputs.items()}
            for seed in range(BATCHES)
        ]

    def write(self, folder: Path) -> Path:
        """Write the model as a user would have it."""
        path = folder / "user.onnx"
        model = self.build()
        if not self.external:
            onnx.save(model, path)
            return path
        (folder / "weights").mkdir()
        onnx.save(
            model,
            path,
            save_as_external_data=True,
            location="weights/all.bin",
            size_threshold=0,
            convert_attribute=True,
        )
        return path


CASES: dict[str, Case] = {}
"""Every model by name; filled as the files of the folder are imported."""


def case(*, external: bool = False, **inputs: Numbers) -> Callable[..., Callable[[], onnx.ModelProto]]:
    """Register a function that builds a model; the keywords say how each input is drawn."""

    def register(build: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
        CASES[build.__name__] = Case(build.__name__, build, inputs, external)
        return build

    return register


def model(text: str, *, opset: int = 17, ir: int = 8, functions: str = "", **weights: Any) -> onnx.ModelProto:
    """Return the model of ONNX's text format.

    Args:
        text: the graph.
        opset: version of the default operator set.
        ir: version of the file format.
        functions: model-local functions, as text.
        weights: initializers by name.
    """
    imports = {"": opset} | {name: each for name, each in DOMAINS.items() if name + "." in text + functions}
    head = ", ".join(f'"{domain}": {version}' for domain, version in imports.items())
    made = parser.parse_model(f"<ir_version: {ir}, opset_import: [{head}]>\n{text}\n{functions}")
    made.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items()
    )
    return made


def weight(*sizes: int, like: str = "", dtype: Any = np.float32, gain: float = 1.0) -> np.ndarray:
    """Return normally distributed numbers, as large as an initialization gives: the same at every call.

    `like` tells two weights of the same sizes apart.
    """
    rng = np.random.default_rng(zlib.crc32(f"{sizes}{like}".encode()))
    fan_in = max(sizes[:-1], default=1) if len(sizes) < 3 else int(np.prod(sizes[1:]))
    return (rng.standard_normal(sizes) * gain / np.sqrt(fan_in)).astype(dtype)


def integers_of(*values: Any, dtype: Any = np.int64) -> np.ndarray:
    """Return shapes, axes and other small integers."""
    return np.array(values, dtype)


def normal(*sizes: int, dtype: Any = np.float32) -> Numbers:
    """Draw normally distributed numbers."""
    return lambda rng: rng.standard_normal(sizes).astype(dtype)


def uniform(low: float, high: float, *sizes: int, dtype: Any = np.float32) -> Numbers:
    """Draw numbers between two ends."""
    return lambda rng: rng.uniform(low, high, sizes).astype(dtype)


def below(end: int, *sizes: int, dtype: Any = np.int64) -> Numbers:
    """Draw integers from 0 up to `end`, without it."""
    return lambda rng: rng.integers(0, end, sizes).astype(dtype)


def always(*values: Any, dtype: Any = np.int64) -> Numbers:
    """Give the same values at every draw."""
    return lambda rng: np.array(values, dtype)


def one(value: Any, dtype: Any = np.int64) -> Numbers:
    """Give the same scalar at every draw."""
    return lambda rng: np.array(value, dtype)


def words(count: int, *sizes: int) -> Numbers:
    """Draw words out of a vocabulary of `count`."""
    vocabulary = np.array([f"w{number}" for number in range(count)], object)
    return lambda rng: vocabulary[rng.integers(0, count, sizes)]
