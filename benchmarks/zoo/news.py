"""English news: 299 articles to evaluate on, and 50 other ones to calibrate with.

They are the corpora of Lee et al. (2005), "An empirical evaluation of models of text document
similarity", in the tests of the package gensim, which is not imported.
"""

from pathlib import Path

from compress.source import locate


def evaluation_text(encoding: str = "utf8") -> str:
    """Return the 299 background articles, one a line."""
    return _read("lee_background.cor", encoding)


def calibration_text() -> str:
    """Return the 50 articles whose similarity people judged, one a line; none is in the other corpus."""
    return _read("lee.cor", "latin-1")


def _read(name: str, encoding: str) -> str:
    return locate(f"package:gensim/test/test_data/{name}", Path()).read_text(encoding=encoding)
