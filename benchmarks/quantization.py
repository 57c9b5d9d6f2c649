"""Quantize the networks of the zoo with our passes and with the peers', and print what each is worth.

``python benchmarks/quantization.py [--models legere,magika] [--methods int8,ort-static] [--json FILE]``

Every method starts from the same float ONNX file with the same calibration batches, in a process of its
own, and is scored on the same evaluation data. Latency is over float, the two taking turns on one thread.
Float files are exported once, into ``benchmarks/.cache``. The networks come with ``benchmarks/models.txt``;
NNCF needs an environment of its own:

    python -m venv benchmarks/.cache/peers
    benchmarks/.cache/peers/bin/python -m pip install --requirement benchmarks/requirements.txt
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quantization_methods import PEERS, save_batches
from rich.console import Console
from rich.table import Table
from zoo import ENTRIES, Entry, entry

import compress
import compress.passes
from compress.passes.base import REGISTRY

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
PEERS_PYTHON = CACHE / "peers/bin/python"
OURS = [
    *(["int8"] if "int8" in REGISTRY else []),
    "int8-static",
    "int8-weights",
    "int4-weights",
    "int4-weights: {group_size: 128}",
]
TIME_LIMIT_SECONDS = 1800


@dataclass
class Result:
    """What one method made of one network."""

    model: str
    method: str
    failure: str = ""
    metric: dict[str, float] = field(default_factory=dict)
    delta: float = 0.0
    """How much worse than float, in the metric's unit."""
    cosine: float = 1.0
    file_ratio: float = 1.0
    """Float's file over the variant's; above 1 is smaller."""
    latency_one: float = 1.0
    """Latency over float's, one sample; below 1 is faster."""
    latency_batch: float = 1.0
    """The same with a calibration batch."""
    seconds: float = 0.0
    peak_bytes: int = 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(each.name for each in ENTRIES))
    parser.add_argument("--methods", nargs="+", default=[*OURS, *PEERS], help="recipe lines and peers")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    results = []
    for name in options.models.split(","):
        network = entry(name)
        folder = prepare(network)
        rows = [score(network, folder, "float", folder / "float.onnx")]
        for method in options.methods:
            print(f"{name}: {method}", file=sys.stderr, flush=True)
            rows.append(measure(network, folder, method, rows[0]))
        show(network, rows)
        results += rows
        if options.json:
            options.json.write_text(json.dumps([asdict(row) for row in results], indent=1))


def prepare(network: Entry) -> Path:
    """Return the folder with the network's float file and calibration batches, made at the first call."""
    folder = CACHE / network.name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "float.onnx").exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = compress.load(
                network.model, calibration=network.calibration, home=HERE / "zoo", trust=True
            )
        model.save(folder / "float.onnx")
    save_batches(network.calibration(), folder / "calibration.npz")
    return folder


def measure(network: Entry, folder: Path, method: str, original: Result) -> Result:
    """Quantize by one method, and score what came out."""
    name = hashlib.sha256(method.encode()).hexdigest()[:12]
    variant = folder / f"{name}.onnx"
    variant.unlink(missing_ok=True)
    python = PEERS_PYTHON if method.startswith("nncf") else Path(sys.executable)
    files = [folder / "float.onnx", folder / "calibration.npz", variant]
    made = run(python, "quantization_methods.py", method, *map(str, files), log=variant.with_suffix(".log"))
    if isinstance(made, str):
        return Result(network.name, method, failure=made)
    result = score(network, folder, method, variant)
    result.seconds, result.peak_bytes = made["seconds"], int(made["peak_bytes"])
    if not result.failure:
        first = next(iter(original.metric))
        result.delta = network.worse_by(result.metric[first], original.metric[first])
    return result


def score(network: Entry, folder: Path, method: str, variant: Path) -> Result:
    """Return metric, closeness, size and latency of one file."""
    original = folder / "float.onnx"
    scored = run(Path(sys.executable), "quantization_score.py", network.name, str(original), str(variant))
    if isinstance(scored, str):
        return Result(network.name, method, failure=f"does not run: {scored}")
    ratio = file_bytes(original) / file_bytes(variant)
    return Result(network.name, method, file_ratio=ratio, **scored)


def file_bytes(path: Path) -> int:
    """Return the size of an ONNX file with its external data."""
    return sum(each.stat().st_size for each in (path, path.with_name(f"{path.name}.data")) if each.exists())


def run(python: Path, script: str, *arguments: str, log: Path | None = None) -> dict[str, Any] | str:
    """Return the JSON that a script prints last, or why it did not come to that."""
    if not python.exists():
        return f"needs {python.relative_to(HERE.parent)}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [str(python), str(HERE / script), *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=CACHE,  # ONNX Runtime's tools leave files in the current folder
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"took more than {TIME_LIMIT_SECONDS} s"
    if log is not None:
        log.write_text(done.stderr)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return f"killed by signal {-done.returncode}" if done.returncode < 0 else (lines or ["?"])[-1][:160]
    # The tools write progress to the same stream, even behind the last line.
    last = next(line for line in reversed(done.stdout.splitlines()) if line.startswith('{"'))
    numbers: dict[str, Any] = json.loads(last)
    return numbers


def show(network: Entry, rows: list[Result]) -> None:
    """Print one network's table."""
    metric = next(iter(rows[0].metric), "metric")
    table = Table(title=f"{network.name} ({metric}, {network.better} is better)")
    for column in (
        "method",
        metric,
        "worse by",
        "cosine",
        "file ÷",
        "latency x 1",
        "x batch",
        "s",
        "peak GB",
    ):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        if row.failure:
            table.add_row(row.method, f"[red]{row.failure}[/red]")
            continue
        value, fits = next(iter(row.metric.values())), row.delta <= network.tolerance
        table.add_row(
            row.method,
            f"{value:.4f}",
            f"[{'green' if fits else 'red'}]{row.delta:+.4f}",
            f"{row.cosine:.4f}",
            f"{row.file_ratio:.2f}",
            f"{row.latency_one:.2f}",
            f"{row.latency_batch:.2f}",
            f"{row.seconds:.1f}",
            f"{row.peak_bytes / 1e9:.2f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
