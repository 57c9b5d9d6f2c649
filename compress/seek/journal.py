"""What a search has found out so far, kept line by line, so that a search that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compress.errors import StoreError, writing


class Journal:
    """Answers by question; each is worked out once, also by a search that was stopped before.

    Args:
        path: file of the answers, one JSON array a line; None to keep them in memory alone. A last line that
            was not written to its end is dropped.

    Raises:
        StoreError: the file is damaged.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None and path.exists():
            whole, _, cut_off = path.read_text(encoding="utf-8").rpartition("\n")
            if cut_off:
                path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
            try:
                self._known = dict(json.loads(line) for line in whole.splitlines())
            except ValueError as error:
                raise StoreError(f"{path}: damaged; --fresh does all work again") from error

    def once(self, question: str, work_out: Callable[[], Any]) -> Any:
        """Return the answer, which JSON can hold, to a question.

        Raises:
            StoreError: the file cannot be written.
        """
        if question not in self._known:
            self._known[question] = answer = work_out()
            if self._path is not None:
                with writing(self._path), self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([question, answer]) + "\n")
        return self._known[question]
