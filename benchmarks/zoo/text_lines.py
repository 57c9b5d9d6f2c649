"""Lines of news text drawn as small pictures, and the distance of what was read from what was written."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Bold", "DejaVuSerif-Bold")
FONT_SIZES = (20, 28)
MARGIN = 4
NOISE = 12.0
LENGTHS = (18, 42)
Line = tuple[np.ndarray, str]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def lines(count: int, text: str, charset: Collection[str], seed: int, height: int) -> list[Line]:
    """Return pictures uint8 [height, width] of random lines of `text`, and what stands in each."""
    rng = np.random.default_rng(seed)
    fonts = _fonts()
    words = _choose(count, text.split(), set(charset), seed)
    return [(_render(line, fonts[k % len(fonts)], height, rng), line) for k, line in enumerate(words)]


def _choose(count: int, words: list[str], charset: set[str], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    chosen: list[str] = []
    while len(chosen) < count:
        start, longest = int(rng.integers(0, len(words) - 20)), int(rng.integers(*LENGTHS))
        line = ""
        for word in words[start : start + 20]:
            if len(line) + len(word) + 1 > longest:
                break
            line = f"{line} {word}".strip()
        if len(line) >= LENGTHS[0] // 2 and set(line) <= charset:
            chosen.append(line)
    return chosen


def _fonts() -> list[Font]:
    """Return the DejaVu fonts of the machine; Pillow's own where there are none."""
    folder = Path("/usr/share/fonts/truetype/dejavu")
    found = [folder / f"{name}.ttf" for name in FONTS if (folder / f"{name}.ttf").exists()]
    if found:
        return [ImageFont.truetype(str(path), size) for path in found for size in FONT_SIZES]
    return [ImageFont.load_default(size) for size in FONT_SIZES]


def _render(text: str, font: Font, height: int, rng: np.random.Generator) -> np.ndarray:
    """Draw dark on light, turned by up to half a degree, with noise."""
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    size = (right - left + 2 * MARGIN, bottom - top + 2 * MARGIN)
    picture = Image.new("L", size, int(rng.integers(225, 256)))
    ink = int(rng.integers(0, 70))
    ImageDraw.Draw(picture).text((MARGIN - left, MARGIN - top), text, font=font, fill=ink)
    turned = picture.rotate(float(rng.uniform(-0.5, 0.5)), fillcolor=245, resample=Image.Resampling.BILINEAR)
    width = max(8, round(turned.width * height / turned.height))
    small = np.asarray(turned.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    return np.clip(small + rng.normal(0, NOISE, small.shape), 0, 255).astype(np.uint8)


def padded(pictures: list[np.ndarray], multiple: int) -> np.ndarray:
    """Return pictures of one height as float32 [count, height, width] in [-1, 1], white at the right.

    The width is that of the widest, rounded up to a `multiple`.
    """
    width = -(-max(picture.shape[1] for picture in pictures) // multiple) * multiple
    rows = np.full((len(pictures), pictures[0].shape[0], width), 255, np.float32)
    for row, picture in zip(rows, pictures, strict=True):
        row[:, : picture.shape[1]] = picture
    return rows / 127.5 - 1


def collapse(best: np.ndarray, characters: str | list[str]) -> str:
    """Return the text of the best classes [steps]: repeats merged, the blank (class 0) dropped."""
    steps = [int(now) for before, now in zip([-1, *best[:-1]], best, strict=True) if now and now != before]
    return "".join(characters[step - 1] for step in steps)


def accuracy(written: list[Line], read: Callable[[np.ndarray], str]) -> dict[str, float]:
    """Return the share of characters read right (1 - edit distance / length), and that of whole lines."""
    results = [(read(picture).strip(), text) for picture, text in written]
    wrong = sum(_edits(result, text) for result, text in results)
    length = sum(len(text) for _, text in results)
    whole = sum(result == text for result, text in results) / len(results)
    return {"character accuracy": 1 - wrong / length, "line accuracy": whole}


def _edits(a: str, b: str) -> int:
    """Return the Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        following = [i]
        for j, right in enumerate(b, 1):
            following.append(min(row[j] + 1, following[-1] + 1, row[j - 1] + (left != right)))
        row = following
    return row[-1]
