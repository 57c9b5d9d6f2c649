"""Files of this Python installation as Magika reads them: the first and last kilobyte of each."""

import hashlib
import json
import sysconfig
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

KINDS = {
    ".py": "python",
    ".pyc": "pythonbytecode",
    ".json": "json",
    ".so": "elf",
    ".h": "c cpp",
    ".html": "html",
    ".css": "css",
    ".js": "javascript",
    ".png": "png",
    ".txt": "txt rst",
    ".toml": "toml",
    ".npy": "npy",
    ".npz": "npz",
    ".ttf": "ttf",
    ".gif": "gif",
    ".svg": "svg",
    ".rst": "rst txt",
    ".cfg": "ini",
    ".zip": "zip",
}
"""File endings, and Magika's labels that are right for each."""
EACH = 40
"""Files of each kind, half to calibrate and half to evaluate."""
BATCH = 32
BLOCK = 1024
PADDING = 256


def features(content: bytes) -> list[int]:
    """Return the first and last 1024 bytes without the white space around them, padded to 2048."""
    first = content[: 4 * BLOCK].lstrip()[:BLOCK]
    last = content[-4 * BLOCK :].rstrip()[-BLOCK:]
    return [*first, *[PADDING] * (BLOCK - len(first)), *[PADDING] * (BLOCK - len(last)), *last]


def files() -> dict[str, list[bytes]]:
    """Return up to `EACH` contents by ending, chosen by the hash of the file's name."""
    found: dict[str, list[Path]] = {ending: [] for ending in KINDS}
    for root in (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"]):
        for path in Path(root).rglob("*.*"):
            if path.suffix in found and path.is_file() and 200 <= path.stat().st_size <= 1_000_000:
                found[path.suffix].append(path)
    order = {path: hashlib.sha256(path.name.encode()).digest() for paths in found.values() for path in paths}
    return {
        ending: [path.read_bytes() for path in sorted(paths, key=lambda path: (order[path], path))[:EACH]]
        for ending, paths in found.items()
    }


def _batches(half: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    chosen = [
        (features(content), kind) for kind, contents in files().items() for content in contents[half::2]
    ]
    for start in range(0, len(chosen), BATCH):
        rows, kinds = zip(*chosen[start : start + BATCH], strict=True)
        yield np.array(rows, np.int32), list(kinds)


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield one half of the files."""
    return ({"bytes": rows} for rows, _ in _batches(0))


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield the other half."""
    return ({"bytes": rows} for rows, _ in _batches(1))


def accuracy(run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> float:
    """Return the share of files whose label fits their ending."""
    package = next(iter(find_spec("magika").submodule_search_locations))
    config = json.loads(Path(package, "models/standard_v3_3/config.min.json").read_text())
    labels = config["target_labels_space"]
    right = [
        labels[best] in KINDS[kind].split()
        for rows, kinds in _batches(1)
        for best, kind in zip(run({"bytes": rows})[0].argmax(-1), kinds, strict=True)
    ]
    return sum(right) / len(right)
