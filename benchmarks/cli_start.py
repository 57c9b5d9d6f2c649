"""Print how long the command line takes to answer: ``python benchmarks/cli_start.py [RECIPE]``.

Each command is a process of its own, started several times. The fastest start is what an idle
machine would show; the processor's seconds depend less on what else runs. With ``--imports`` the
slowest imports of ``compress check`` follow, in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOAL_SECONDS = 0.6
"""For ``compress --help`` and ``compress check``, on an idle machine."""
RECIPE = """
version: 1
model: net.onnx
matrix: {size: [16, 32, 64, 128]}
variants:
  original: []
  "int4-${size}": [fold, int4-weights: {group_size: "${size}"}]
"""


def seconds(arguments: list[str], runs: int) -> tuple[float, float]:
    """Return the fastest wall time of `runs` processes, and the least processor time."""
    walls, processors = [], []
    for _ in range(runs):
        start, used = time.perf_counter(), children_seconds()
        subprocess.run(command(arguments), check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - start)
        processors.append(children_seconds() - used)
    return min(walls), min(processors)


def children_seconds() -> float:
    """Return the processor time of all child processes so far."""
    times = os.times()
    return times.children_user + times.children_system


def command(arguments: list[str], *options: str) -> list[str]:
    return [sys.executable, *options, "-c", "from compress.cli import main; main()", *arguments]


def print_slowest_imports(arguments: list[str], count: int = 12) -> None:
    """Print the modules that take the most time of their own to import."""
    done = subprocess.run(command(arguments, "-X", "importtime"), check=True, capture_output=True, text=True)
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines()[1:]]
    slowest = sorted(rows, key=lambda row: int(row[0]), reverse=True)[:count]
    for own, _, module in slowest:
        print(f"{int(own) / 1000:8.1f} ms  {module.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", nargs="?", type=Path, help="a recipe to check; a small one if left out")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--imports", action="store_true", help="list the slowest imports too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = options.recipe or Path(folder, "recipe.yaml")
        if options.recipe is None:
            recipe.write_text(RECIPE)
            Path(folder, "net.onnx").touch()
        check = ["check", str(recipe)]
        print(f"goal for --help and check: {GOAL_SECONDS} s")
        for arguments in (["--help"], check, ["passes"], ["schema"], ["hardware"]):
            wall, processor = seconds(arguments, options.runs)
            print(f"{f'compress {arguments[0]}':<18} {wall:.3f} s, of the processor {processor:.3f} s")
        if options.imports:
            print_slowest_imports(check)


if __name__ == "__main__":
    main()
