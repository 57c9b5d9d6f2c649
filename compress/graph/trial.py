"""Graphs tried in a child process first: ONNX Runtime may end its process as it loads one."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

LOADER = """
import json, sys
import onnxruntime
for line in sys.stdin:
    path, optimize, providers = json.loads(line)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception:
        pass  # what the runtime refuses, the caller will meet itself
    print("alive", flush=True)
"""
"""What the child runs: it loads each file that it is told of."""


class _Child:
    """A process that loads files, and the process that it belongs to."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", LOADER],  # -P: nothing of the current folder is imported
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        atexit.register(self._close)

    def _close(self) -> None:
        """End the child, unless it belongs to the process that this one was forked from."""
        if self.owner == os.getpid():
            self._process.kill()
            self._process.communicate()

    def ending(self, request: str) -> str:
        """Return the signal that ended the child as it loaded a file; empty if none did."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
            if self._process.stdout.readline():
                return ""
        except BrokenPipeError:
            pass
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else ""

    @property
    def is_usable(self) -> bool:
        """Whether it lives, and belongs to this process: a fork does not share its pipes."""
        return self.owner == os.getpid() and self._process.poll() is None


_lock = threading.Lock()
_children: list[_Child] = []


def ending(path: str | os.PathLike[str], providers: Sequence[str], *, optimize: bool = True) -> str:
    """Return how ONNX Runtime ends its process as it loads a file, "SIGSEGV" say; empty if it does not."""
    request = json.dumps([str(Path(path).resolve()), optimize, list(providers)])
    with _lock:
        if not _children or not _children[0].is_usable:
            _children[:] = [_Child()]
        return _children[0].ending(request)
