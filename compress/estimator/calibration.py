"""Times the runtime's kernels on this machine."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from compress import cpu
from compress.diagnose.layer_times import kernel_times
from compress.errors import writing
from compress.estimator import trials
from compress.estimator.files import own_kernels_path
from compress.estimator.hardware import Profile
from compress.estimator.kernels import Kernels, Timing, fit, of_this_machine
from compress.estimator.scoring import read_workload
from compress.estimator.workload import LayerWork
from compress.progress import track

RESOLUTION = 5e-7
"""Half of the microsecond that the runtime's profile counts in."""


def calibrate(profile: Profile) -> tuple[Kernels, Path]:
    """Time the kernels of this machine, and keep their constants where estimates on it find them.

    Args:
        profile: one that executes graphs as the runtime does; only its way to read a graph counts.

    Raises:
        StoreError: the user's cache cannot be written.
    """
    networks = list(trials.networks())
    timed = [each for proto in track(networks, "timing kernels") for each in timings(proto, profile)]
    found, path = fit(_machine(), timed), own_kernels_path()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        found.save(path)
    of_this_machine.cache_clear()
    return found, path


def timings(proto: onnx.ModelProto, profile: Profile) -> Iterator[Timing]:
    """Yield the least time of each layer of a network; the parts of one node share its time by their work."""
    model, random = ir.from_proto(proto), np.random.default_rng(0)
    feeds = {
        value.name or "": random.standard_normal(value.shape.numpy(), np.float32)  # type: ignore[union-attr]
        for value in model.graph.inputs
    }
    times = {name: min(each[1:] or each) for name, each in kernel_times(model, feeds)[0].items()}
    parts: dict[str, list[LayerWork]] = defaultdict(list)
    for layer in read_workload(model, profile).layers:
        parts[layer.name if layer.name in times else layer.name.rpartition("/")[0]].append(layer)
    for name in parts.keys() & times.keys():
        taken = max(times[name], RESOLUTION)
        work = sum(layer.macs for layer in parts[name])
        for layer in parts[name]:
            yield Timing(layer, taken * layer.macs / work if len(parts[name]) > 1 else taken)


def _machine() -> str:
    """Return what the processor calls itself, where the system tells."""
    return cpu.described("model name") or platform.processor() or platform.machine()
