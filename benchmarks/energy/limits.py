"""Bounds that no schedule beats, on random layers, and the time of estimates.

``python benchmarks/energy/limits.py`` (the models that ``benchmarks/zoo`` exported, if any, are timed too)
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from compress.errors import ModelError
from compress.estimator import estimate
from compress.estimator.mapping import Loops, Words, search

EXPORTED = Path(__file__).parents[1] / ".cache"


def beaten(count: int) -> tuple[int, int, float]:
    """Return how many of `count` random layers beat compulsory traffic and Hong and Kung's bound.

    The latter is 2 MNK / sqrt(S) - 2 S words for a matrix product through S words (Smith et al. 2019).
    The third number is the seconds of one search.
    """
    generator = np.random.default_rng(0)
    compulsory = hong_kung = 0
    seconds = 0.0
    for _ in range(count):
        m, c, rows = (int(size) for size in np.exp(generator.uniform(0, 8, 3)))
        kernel, stride = int(generator.choice([1, 1, 3, 5])), int(generator.choice([1, 1, 2]))
        capacity = float(np.exp(generator.uniform(3, 16)))
        out = (rows, int(generator.integers(1, 30)))
        loops = Loops(m=m, c=c, out=out, kernel=(kernel, kernel), stride=(stride, stride))
        start = time.process_time()
        passes = search(loops, Words(1, 1, 1), Words(1, 1, 1), capacity)
        seconds += time.process_time() - start
        moved = math.fsum(words * crossed for words, crossed in zip(loops.elements, passes, strict=True))
        compulsory += moved < sum(loops.elements) * (1 - 1e-9)
        hong_kung += kernel == 1 and moved < 2 * loops.macs / math.sqrt(capacity) - 2 * capacity
    return compulsory, hong_kung, seconds / count


def deep(layers: int = 100) -> onnx.ModelProto:
    """Return a chain of different convolutions with their ReLUs."""
    generator = np.random.default_rng(0)
    nodes, weights, last, channels = [], [], "x", 16
    for index in range(layers):
        outputs, kernel = int(generator.integers(16, 256)), int(generator.choice([1, 3, 5]))
        shape = (outputs, channels, kernel, kernel)
        weights.append(onnx.numpy_helper.from_array(np.zeros(shape, np.float16), f"w{index}"))
        padding = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=padding))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last, channels = f"r{index}", outputs
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 16, 28, 28])
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT16, None)
    graph = helper.make_graph(nodes, "deep", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def took(model: onnx.ModelProto | Path, hardware: str) -> tuple[float, int]:
    """Return processor seconds of one estimate, nothing cached, and its layers."""
    search.cache_clear()
    start = time.process_time()
    found = estimate(model, hardware)
    return time.process_time() - start, len(found.layers)


def main() -> None:
    estimate(deep(2), "tpu-v4i")  # imports
    count = 10_000
    compulsory, hong_kung, seconds = beaten(count)
    print(f"compulsory traffic beaten by {compulsory} of {count} random layers")
    print(f"Hong and Kung's bound beaten by {hong_kung}; {seconds * 1e3:.2f} ms a search")
    for hardware in ("eyeriss-v1", "gap9", "tpu-v4i", "h200"):
        seconds, layers = took(deep(), hardware)
        print(f"{hardware:12} {layers} different layers {seconds:.3f} s")
    for path in sorted(EXPORTED.glob("*/float.onnx")):
        try:
            seconds, layers = took(path, "tpu-v4i")
        except ModelError as error:
            print(f"{path.parent.name}: {error}")
            continue
        size = path.stat().st_size / 1e6
        print(f"{'tpu-v4i':12} {path.parent.name}, {layers} layers, {size:.0f} MB {seconds:.3f} s")


if __name__ == "__main__":
    main()
