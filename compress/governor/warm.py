"""Sessions that are ready to run, as many as fit into memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from compress.errors import ModelError
from compress.graph.session import session

if TYPE_CHECKING:
    import onnxruntime as ort


class Warm:
    """Sessions by file, the one that was used longest ago closed first.

    Args:
        limit_bytes: size of the files whose sessions are kept; the one in use is kept whatever its size.
        threads: threads of one operator.
        opener: opens a file.
    """

    def __init__(
        self, limit_bytes: float, threads: int = 0, opener: Callable[..., ort.InferenceSession] = session
    ) -> None:
        self._limit, self._threads, self._open = limit_bytes, threads, opener
        self._sessions: OrderedDict[Path, tuple[ort.InferenceSession, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, path: Path) -> ort.InferenceSession:
        """Return the session of a file, opened now if it is not warm.

        Raises:
            ModelError: there is no such file, or ONNX Runtime refuses it.
        """
        if path not in self._sessions:
            if not path.is_file():
                raise ModelError(f"{path}: No such file or directory; run the recipe again")
            size = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
            self._sessions[path] = self._open(path, threads=self._threads), size
        self._sessions.move_to_end(path)
        while len(self) > 1 and sum(size for _, size in self._sessions.values()) > self._limit:
            self._sessions.popitem(last=False)
        return self._sessions[path][0]
