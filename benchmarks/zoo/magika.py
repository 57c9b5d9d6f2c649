"""Magika standard_v3_3 (ONNX from JAX: dense layers, LayerNorm and GELU as raw operators, convolution; 0.78 M
weights) tells 200 kinds of files apart, Apache-2.0.

Evaluation: up to 40 files of each ending found on this machine, the first by the hash of their name.
Calibration: the next files of the same order, up to 20 of each ending, where there are more than 40.
"""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from compress.source import locate

KINDS = {
    ".py": "python",
    ".pyc": "pythonbytecode",
    ".h": "c cpp",
    ".c": "c",
    ".cpp": "cpp",
    ".hpp": "cpp c",
    ".json": "json",
    ".so": "elf",
    ".html": "html",
    ".css": "css",
    ".js": "javascript",
    ".png": "png",
    ".gif": "gif",
    ".jpg": "jpeg",
    ".svg": "svg",
    ".ttf": "ttf",
    ".npy": "npy",
    ".npz": "npz",
    ".pm": "perl",
    ".sh": "shell",
    ".xml": "xml",
    ".gz": "gzip",
    ".md": "markdown",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".csv": "csv",
    ".rst": "rst txt",
    ".cmake": "cmake",
    ".wav": "wav",
    ".zip": "zip",
    ".whl": "zip",
    ".pem": "pem",
    ".ini": "ini",
    ".m4": "m4",
}
"""File endings, and Magika's labels that are right for each."""
EVALUATED, CALIBRATED = 40, 20
BATCH = 32
BLOCK = 1024
PADDING = 256
MOST_LISTED = 4000
SIZES = range(200, 5_000_001)


def _features(content: bytes) -> list[int]:
    """Return the first and last 1024 bytes without the white space around them, padded to 2048."""
    first = content[: 4 * BLOCK].lstrip()[:BLOCK]
    last = content[-4 * BLOCK :].rstrip()[-BLOCK:]
    return [*first, *[PADDING] * (BLOCK - len(first)), *[PADDING] * (BLOCK - len(last)), *last]


def _listed() -> dict[str, list[tuple[str, str]]]:
    """Return (hash of the name, path) of files by ending, as the folders are walked."""
    found: dict[str, list[tuple[str, str]]] = {ending: [] for ending in KINDS}
    purelib = str(locate("package:magika", Path()).parent)
    torch = str(locate("package:torch", Path()).parent)
    roots = dict.fromkeys([sysconfig.get_paths()["stdlib"], purelib, torch, "/usr/share", "/usr/lib"])
    for root in roots:
        for folder, inner, names in os.walk(root):
            inner.sort()
            for name in names:
                ending = os.path.splitext(name)[1].lower()  # noqa: PTH122  (some 100,000 names)
                if ending in found and len(found[ending]) < MOST_LISTED:
                    key = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
                    found[ending].append((key, f"{folder}/{name}"))
    return found


@cache
def _files() -> dict[str, list[list[int]]]:
    """Return the features of up to 60 files by ending, no two of one content."""
    chosen: dict[str, list[list[int]]] = {ending: [] for ending in KINDS}
    for ending, paths in _listed().items():
        seen = set()
        for _, path in sorted(paths):
            if len(chosen[ending]) == EVALUATED + CALIBRATED:
                break
            try:
                content = Path(path).read_bytes()
            except OSError:
                continue
            if len(content) in SIZES and content not in seen:
                seen.add(content)
                chosen[ending].append(_features(content))
    return chosen


def _batches(part: slice) -> Iterator[tuple[dict[str, np.ndarray], list[str]]]:
    rows = [(features, ending) for ending, files in _files().items() for features in files[part]]
    for start in range(0, len(rows), BATCH):
        features, endings = zip(*rows[start : start + BATCH], strict=True)
        yield {"bytes": np.array(features, np.int32)}, list(endings)


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield files that are not evaluated, a mix of endings in every batch."""
    rows = np.concatenate([feeds["bytes"] for feeds, _ in _batches(slice(EVALUATED, None))])
    mixed = np.random.default_rng(0).permutation(rows)
    return ({"bytes": mixed[start : start + BATCH]} for start in range(0, len(mixed), BATCH))


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield the files that are evaluated."""
    return (feeds for feeds, _ in _batches(slice(EVALUATED)))


def metric(run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> dict[str, float]:
    """Return the share of files whose label fits their ending."""
    config = locate("package:magika/models/standard_v3_3/config.min.json", Path())
    labels = json.loads(config.read_text())["target_labels_space"]
    right = [
        labels[best] in KINDS[ending].split()
        for feeds, endings in _batches(slice(EVALUATED))
        for best, ending in zip(run(feeds)[0].argmax(-1), endings, strict=True)
    ]
    return {"accuracy": sum(right) / len(right)}
