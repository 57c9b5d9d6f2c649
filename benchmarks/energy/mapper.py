"""Our tile search beside ZigZag's, on ResNet-18's convolutions: DRAM bytes and time.

``python benchmarks/energy/mapper.py`` prints the recorded figures of the peer; with ``--run PYTHON`` it is
run again (minutes) in an environment of its own:

    python -m venv benchmarks/.cache/zigzag
    benchmarks/.cache/zigzag/bin/python -m pip install --requirement benchmarks/energy/requirements.txt
    python benchmarks/energy/mapper.py --run benchmarks/.cache/zigzag/bin/python

Both have one buffer of 32 KiB for all operands, 8-bit operands, and partial sums of 16 bits unless a tile
holds the whole reduction, so that they stay in registers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compress.estimator.mapping import DATAFLOWS, Crossings, Loops, Words, search

BUFFER_BYTES = 32768
HELD, MOVED, PARTIAL_BYTES = Words(1, 1, 2), Words(1, 1, 1), 2


@dataclass(frozen=True)
class Layer:
    """A convolution, how often ResNet-18 has it, and what ZigZag 3.9.1 found and took for it here."""

    outputs: int
    inputs: int
    size: int
    kernel: int
    stride: int
    times: int
    zigzag_bytes: float
    zigzag_seconds: float

    @property
    def shape(self) -> list[int]:
        return [self.outputs, self.inputs, self.size, self.kernel, self.stride]

    @property
    def loops(self) -> Loops:
        side = self.size * self.stride if self.kernel > 1 else (self.size - 1) * self.stride + 1
        padding = (self.size - 1) * self.stride + self.kernel - side
        return Loops(
            m=self.outputs,
            c=self.inputs,
            out=(self.size, self.size),
            kernel=(self.kernel, self.kernel),
            stride=(self.stride, self.stride),
            padding=(padding, padding),
        )


LAYERS = (
    Layer(64, 3, 112, 7, 2, 1, 1016512, 26.5),
    Layer(64, 64, 56, 3, 1, 4, 1441792, 21.8),
    Layer(128, 64, 28, 3, 2, 1, 1378304, 15.2),
    Layer(128, 64, 28, 1, 2, 1, 158720, 21.0),
    Layer(128, 128, 28, 3, 1, 3, 2555904, 17.6),
    Layer(256, 128, 14, 3, 2, 1, 1549312, 27.0),
    Layer(256, 128, 14, 1, 2, 1, 108032, 32.5),
    Layer(256, 256, 14, 3, 1, 3, 1041408, 28.6),
    Layer(512, 256, 7, 3, 2, 1, 1555968, 29.2),
    Layer(512, 256, 7, 1, 2, 1, 168704, 14.7),
    Layer(512, 512, 7, 3, 1, 3, 2409472, 32.0),
)


def traffic(loops: Loops) -> float:
    """Return the DRAM bytes of our best tiling, partial sums counted at their own width."""
    inputs, weights, outputs = loops.elements

    def moved(passes: Crossings) -> float:
        sums = 1 + PARTIAL_BYTES * (passes.output - 1)
        return inputs * passes.input + weights * passes.weight + outputs * sums

    channels = Words(loops.c, loops.c, 1)
    whole = search(replace(loops, c=1), channels, channels, BUFFER_BYTES, ("weight-stationary",))
    return min(
        moved(whole),
        *(moved(search(loops, MOVED, HELD, BUFFER_BYTES, (dataflow,))) for dataflow in DATAFLOWS),
    )


def peer(python: str) -> list[dict[str, float]]:
    """Return bytes and seconds of every layer, from ZigZag itself."""
    done = subprocess.run(
        [python, str(Path(__file__).with_name("mapper_zigzag.py"))],
        input=json.dumps([layer.shape for layer in LAYERS]),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


def main() -> None:
    if "--run" in sys.argv:
        theirs = peer(sys.argv[sys.argv.index("--run") + 1])
    else:
        theirs = [{"bytes": layer.zigzag_bytes, "seconds": layer.zigzag_seconds} for layer in LAYERS]
    print("convolution               ours           ZigZag           ratio     times as fast")
    sums = np.zeros(4)
    for layer, other in zip(LAYERS, theirs, strict=True):
        search.cache_clear()
        start = time.perf_counter()
        ours = traffic(layer.loops)
        seconds = time.perf_counter() - start
        name = "x".join(map(str, layer.shape)) + f" ({layer.times})"
        _show(name, ours, other["bytes"], seconds, other["seconds"])
        sums += (ours * layer.times, other["bytes"] * layer.times, seconds, other["seconds"])
    _show("all 20", *sums)
    print(f"{'time':22}{sums[2]:11.4f} s{sums[3]:13.1f} s")


def _show(name: str, ours: float, theirs: float, seconds: float, their_seconds: float) -> None:
    print(f"{name:22}{ours:11,.0f} B{theirs:13,.0f} B{ours / theirs:13.3f}{their_seconds / seconds:16,.0f}")


if __name__ == "__main__":
    main()
