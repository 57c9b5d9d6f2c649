"""A small convolutional network, of which a search takes seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import compress
from compress.model import Model

CNN = """cnn (float[N,3,12,12] x) => (float[N,5] y) {
  [first] a = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)
  [second] b = Conv<pads=[1,1,1,1], strides=[2,2]>(r, w2, b2)  s = Relu(b)
  [third] c = Conv<pads=[1,1,1,1]>(s, w3, b3)  t = Add(c, s)  u = Relu(t)
  m = GlobalAveragePool(u)  f = Flatten(m)  [head] y = Gemm(f, w4, b4)
}"""


@pytest.fixture(scope="session")
def cnn(build: Callable[..., onnx.ModelProto]) -> Model:
    """A residual network with labelled calibration data, whose labels are its own answers."""
    rng = np.random.default_rng(7)

    def weight(*shape: int) -> np.ndarray:
        # A few channels matter more than others, as in trained networks.
        matters = np.exp(rng.normal(0, 1, (shape[0], *[1] * (len(shape) - 1))))
        fan_in = np.prod(shape[1:])
        return (rng.normal(0, fan_in**-0.5, shape) * matters).astype(np.float32)

    weights = {
        "w1": weight(16, 3, 3, 3),
        "b1": np.zeros(16, np.float32),
        "w2": weight(24, 16, 3, 3),
        "b2": np.zeros(24, np.float32),
        "w3": weight(24, 24, 3, 3),
        "b3": np.zeros(24, np.float32),
        "w4": weight(24, 5) * 4,
        "b4": np.zeros(5, np.float32),
    }
    proto = build(CNN, **weights)
    given = compress.load(proto)
    images = [rng.normal(0, 1, (16, 3, 12, 12)).astype(np.float32) for _ in range(8)]
    return compress.load(
        proto, calibration=[({"x": each}, given.run({"x": each})[0].argmax(1)) for each in images]
    )
