"""Memory fills of ONNX Runtime on one core, as cachegrind counts them, beside the CPU profile's.

``python benchmarks/energy/cachegrind.py`` prints the recorded counts; with ``--run`` it counts them again
(needs valgrind, takes minutes). A model's fills are those of `RUNS` inferences more, over `RUNS`: what the
interpreter fills before varies by megabytes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from compress.estimator import Profile, estimate, load

RUNS = 12
LAST_LEVEL, FIRST_LEVEL, LINE = 1 << 20, 1 << 15, 64
RECORDED = {"64x1024x1024": 4.62e6, "256x512x2048": 10.60e6, "1x2048x2048": 15.33e6, "cnn": 37.61e6}
"""Bytes filled from memory by one inference; ORT 1.32, valgrind 3.19 (which offers it AVX2)."""
_RUN = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
feeds = {i.name: numpy.ones(i.shape, numpy.float32) for i in session.get_inputs()}
for _ in range(int(sys.argv[2])):
    session.run(None, feeds)
"""


def product(rows: int, inputs: int, outputs: int) -> onnx.ModelProto:
    """A float matrix product."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, outputs])
    weight = onnx.numpy_helper.from_array(np.ones((inputs, outputs), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def cnn() -> onnx.ModelProto:
    """Three convolutions with their ReLUs, larger than the cache."""
    nodes, weights, last = [], [], "x"
    for index, (inputs, outputs, stride) in enumerate(((32, 64, 1), (64, 128, 2), (128, 256, 2))):
        shape = (outputs, inputs, 3, 3)
        weights.append(onnx.numpy_helper.from_array(np.full(shape, 0.01, np.float32), f"w{index}"))
        conv = helper.make_node(
            "Conv", [last, f"w{index}"], [f"c{index}"], pads=[1] * 4, strides=[stride] * 2
        )
        nodes += [conv, helper.make_node("Relu", [f"c{index}"], [f"r{index}"])]
        last = f"r{index}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 96, 96])
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 256, 24, 24])
    graph = helper.make_graph(nodes, "cnn", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


MODELS = {
    "64x1024x1024": lambda: product(64, 1024, 1024),
    "256x512x2048": lambda: product(256, 512, 2048),
    "1x2048x2048": lambda: product(1, 2048, 2048),
    "cnn": cnn,
}


def simulated() -> Profile:
    """The CPU profile with the two caches that cachegrind simulates, each at half its size."""
    profile = load("cpu")
    dram, outer, _, inner, registers = profile.memories

    def sized(memory, size):  # type: ignore[no-untyped-def]
        capacity = memory.capacity_bytes.model_copy(update={"value": size / 2})
        return memory.model_copy(update={"capacity_bytes": capacity})

    memories = (dram, sized(outer, LAST_LEVEL), sized(inner, FIRST_LEVEL), registers)
    return profile.model_copy(update={"memories": memories})


def estimated(name: str) -> float:
    """Return the bytes that the profile expects."""
    return estimate(MODELS[name](), simulated()).total.dram_bytes


def count(name: str) -> float:
    """Return the bytes filled by one inference, from two runs under cachegrind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(MODELS[name](), path)
        misses = [_misses(path, runs) for runs in (1, 1 + RUNS)]
    return (misses[1] - misses[0]) / RUNS * LINE


def _misses(path: Path, runs: int) -> int:
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", "--cachegrind-out-file=/dev/null"]
    command += [f"--D1={FIRST_LEVEL},8,{LINE}", f"--LL={LAST_LEVEL},16,{LINE}"]
    done = subprocess.run(
        ["setarch", "--addr-no-randomize", *command, sys.executable, "-c", _RUN, str(path), str(runs)],
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"LLd misses:\s+([\d,]+)", done.stderr)
    if found is None:
        raise SystemExit(f"cachegrind printed no LLd misses:\n{done.stderr}")
    return int(found[1].replace(",", ""))


def main() -> None:
    for name, recorded in RECORDED.items():
        counted = count(name) if "--run" in sys.argv else recorded
        expected = estimated(name)
        error = expected / counted - 1
        print(f"{name:16} {expected / 1e6:8.2f} MB estimated {counted / 1e6:8.2f} MB counted {error:+.1%}")


if __name__ == "__main__":
    main()
