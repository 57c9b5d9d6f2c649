"""Several processes that train together on the same lesson.

`group` starts them for the setting ``processes``. Under ``torchrun``, a script initializes the process group
itself and applies the pass in every process. The training loop finds the group in both cases.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as distributed

from compress.errors import CompressError, PassError
from compress.train.lesson import Lesson, learn

STORE = "store"


@contextmanager
def group(save: Callable[[Path], None], count: int) -> Iterator[None]:
    """Run the body as the first of `count` processes, while the others train on the same lesson.

    The others read the lesson from files, and their results are discarded.

    Args:
        save: writes the lesson into a folder.
        count: number of processes, this one included.

    Raises:
        PassError: another process failed; the message says why.
    """
    threads = torch.get_num_threads()
    share = max(threads // count, 1)
    with tempfile.TemporaryDirectory(prefix="compress-") as name:
        folder = Path(name)
        save(folder)
        others = [_start(folder, rank, count, share) for rank in range(1, count)]
        try:
            _await(folder, others)
            torch.set_num_threads(share)
            _join(folder, 0, count)
            try:
                yield
            finally:
                distributed.destroy_process_group()
            for other in others:
                other.wait()
            _check(folder, others)
        except RuntimeError:
            # A connection that breaks here is a consequence: the failure of the other process is the cause.
            _check(folder, others, patience_seconds=5.0)
            raise
        finally:
            torch.set_num_threads(threads)
            for other in others:
                other.kill()
                other.wait()


def _start(folder: Path, rank: int, count: int, threads: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "LOCAL_RANK": str(rank)}
    command = [sys.executable, "-m", "compress.train.processes", str(folder), str(rank), str(count)]
    with (folder / f"{rank}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def _await(folder: Path, others: list[subprocess.Popen[bytes]]) -> None:
    """Wait until every process has read its files, or one has failed."""
    while len(list(folder.glob("*.ready"))) < len(others):
        _check(folder, others)
        time.sleep(0.05)


def _check(folder: Path, others: list[subprocess.Popen[bytes]], patience_seconds: float = 0.0) -> None:
    """Raise the error of a process that has failed or that fails within `patience_seconds`."""
    end = time.monotonic() + patience_seconds
    while True:
        for rank, other in enumerate(others, 1):
            if other.poll():
                said = (folder / f"{rank}.log").read_text(encoding="utf-8", errors="replace").split("\n")
                reason = next((line for line in reversed(said) if line), f"exit code {other.poll()}")
                raise PassError(f"process {rank + 1} of {len(others) + 1} failed: {reason}")
        if time.monotonic() >= end:
            return
        time.sleep(0.05)


def _join(folder: Path, rank: int, count: int) -> None:
    """Join the process group through a file, so that no port can be in use already."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(
        backend, init_method=f"file://{folder / STORE}", rank=rank, world_size=count
    )


def _help(folder: Path, rank: int, count: int) -> None:
    """Take part in a training; only the first process keeps the result."""
    lesson = Lesson.load(folder)
    (folder / f"{rank}.ready").touch()
    _join(folder, rank, count)
    try:
        learn(lesson)
    finally:
        distributed.destroy_process_group()


def main(folder: str, rank: str, count: str) -> None:
    """Be one of the processes that `group` starts."""
    try:
        _help(Path(folder), int(rank), int(count))
    except CompressError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
