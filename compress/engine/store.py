"""Results stored under a hash of everything they depend on; each is written whole or not at all."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from compress import source
from compress.cpu import saturates
from compress.errors import StoreError, writing

PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "transformers", "numpy")
"""Packages whose version decides what comes out of a pass."""
CHUNK_BYTES = 1 << 20
_Read = TypeVar("_Read")


class Store:
    """A folder of results, each a folder of files named by its key."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out, and clear away what killed runs left behind.

        Raises:
            StoreError: another run uses this folder, or it cannot be written.
        """
        lock = FileLock(self.folder / "lock", timeout=0)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as error:
                raise StoreError(
                    f"{self.folder.parent}: another run uses this folder; wait, or choose another with -o"
                ) from error
        try:
            with writing(self.folder):
                for scratch in self.folder.glob(".partial-*"):
                    shutil.rmtree(scratch)
            yield
        finally:
            lock.release()

    def get(self, key: str) -> Path | None:
        """Return the folder of a result, or None if it is not there."""
        folder = self.folder / key
        return folder if folder.is_dir() else None

    def put(self, key: str, write: Callable[[Path], object]) -> Path:
        """Store what `write` puts into the folder it is given; the result appears whole or not at all.

        Raises:
            StoreError: the result cannot be written.
        """
        folder = self.folder / key
        with writing(folder):
            scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.folder))
            try:
                write(scratch)
                scratch.replace(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return folder

    def journal(self, key: str) -> Path:
        """Return the file for what the making of a result finds on its way."""
        return self.folder / f"{key}.jsonl"

    def clear(self) -> None:
        """Forget every result, and what was on the way to one."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix == ".jsonl":
                path.unlink()


def read(path: Path, parse: Callable[[str], _Read]) -> _Read:
    """Return what an earlier task wrote.

    Raises:
        StoreError: `parse` does not understand it.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path}: damaged; --fresh does all work again") from error


def key(*parts: Any) -> str:
    """Return the hash of `parts`, which JSON can hold, and of the `environment`."""
    text = json.dumps([environment(), *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def environment() -> tuple[tuple[str, str], ...]:
    """Return what results depend on besides their inputs: versions, this package's code, the processor."""
    versions = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "saturates": str(saturates()),
    }
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        code.update(path.read_bytes())
    versions["compress"] = code.hexdigest()[:16]
    return tuple(sorted(versions.items()))


def digest(reference: str, home: Path) -> str:
    """Return the hash of what a reference of a recipe names: the code of a function, the content of a file.

    Args:
        reference: ``file.py:function``, a path, or ``package:NAME/inner/path``.
        home: the folder that paths are relative to.
    """
    file, is_code, _ = reference.rpartition(".py:")
    return code_digest(home / f"{file}.py") if is_code else file_digest(source.locate(reference, home))


def file_digest(path: Path) -> str:
    """Return the hash of a file's content; for a folder, of the names and contents of its files."""
    if path.is_dir():
        return key(sorted((file.name, file_digest(file)) for file in path.iterdir() if file.is_file()))
    content = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            content.update(chunk)
    return content.hexdigest()


def code_digest(path: Path) -> str:
    """Return the hash of a Python file and of the modules beside it that it imports.

    Data files that the code reads are not included.
    """
    seen: dict[Path, str] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        source = file.read_bytes()
        seen[file] = hashlib.sha256(source).hexdigest()
        waiting += [found for name in _imports(source) if (found := file.parent / f"{name}.py").is_file()]
    return key(sorted((file.name, digest) for file, digest in seen.items()))


def _imports(source: bytes) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
