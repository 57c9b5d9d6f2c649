"""How fast GPTQ is: ours against the one that ONNX Runtime ships, and against this machine's matrix products.

``python benchmarks/gptq_speed.py [--blocks 2]``

Both solvers get the weights of layers of SmolLM2 (benchmarks/models.txt) that share their input, and the
second moments of that input on calibration data, and round to 4 bits in symmetric groups of 64. Times
are processor seconds on one thread, the least of three turns; ONNX Runtime's, which takes the layers one
by one, runs once. "ours" chooses ranges by the mse search and rounds in turn, as int4-weights does; the
solver's rate is that of the rounding, ``K³/3`` for the Cholesky factor and ``K²N`` for the feedback of
errors, over the rate of a product of square matrices.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = (
    "1"  # before numpy and torch start theirs
)

import time
from collections.abc import Callable
from itertools import groupby, islice

import numpy as np
import torch
from onnxruntime.quantization.neural_compressor.weight_only import gptq as onnxruntime_gptq
from quantization import prepare
from quantization_methods import read_batches
from rich.console import Console
from rich.table import Table
from zoo import entry

import compress
from compress.graph.linear import linear_layers, source
from compress.graph.moments import second_moments
from compress.numerics.awq import output_error
from compress.numerics.formats import IntegerFormat
from compress.numerics.gptq import gptq, in_turn
from compress.numerics.granularity import PerGroup

GROUP = 64
INTEGERS = IntegerFormat(4, PerGroup(GROUP), signed=False, method="mse")
LAYERS_OF_A_BLOCK = 7
SIDE = 1024
"""Side of the matrices whose product gives this machine's rate."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1, help="how many blocks of the network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = prepare(entry("smollm2"))
    model = compress.load(folder / "float.onnx", calibration=read_batches(folder / "calibration.npz"))
    chosen = list(islice(linear_layers(model.graph), LAYERS_OF_A_BLOCK * options.blocks))
    moments = second_moments(model.ir, model.batches(), chosen)
    table = Table(title="GPTQ, one thread, processor seconds")
    for column in ("input", "K x N", "ours", "ORT", "ORT / ours", "GFLOP/s", "of sgemm", "error, ORT / ours"):
        table.add_column(column, justify="left" if column == "input" else "right")
    for name, readers in groupby(chosen, source):
        sharing = list(readers)
        weight = torch.from_numpy(np.concatenate([layer.array for layer in sharing], 1))
        table.add_row(
            name, *row(weight, [layer.array for layer in sharing], moments[sharing[0].name].matrix())
        )
    Console(width=120).print(table)


def row(weight: torch.Tensor, parts: list[np.ndarray], hessian: torch.Tensor) -> list[str]:
    """Return what layers with one input measured."""
    features, outputs = weight.shape
    ours = seconds(lambda: gptq(weight, hessian, INTEGERS))
    theirs = seconds(lambda: peer(parts, hessian), turns=1)
    found = gptq(weight, hessian, INTEGERS)
    errors = [output_error(weight - each, hessian) for each in (peer(parts, hessian), found.dequantize())]
    scale = PerGroup(GROUP).expand(found.scale, (features, outputs))
    low, high = (torch.full_like(scale, end) for end in (-8, 7))
    order = hessian.diagonal().argsort(descending=True)
    rounding = seconds(lambda: in_turn(weight, hessian, scale, low, high, order, 0.01))
    left = torch.randn(SIDE, SIDE)
    peak = 2 * SIDE**3 / seconds(lambda: left @ left)
    rate = (features**3 / 3 + features**2 * outputs) / rounding
    return [
        f"{features} x {outputs}",
        f"{ours:.3f}",
        f"{theirs:.3f}",
        f"{theirs / ours:.1f}",
        f"{rate / 1e9:.1f}",
        f"{rate / peak:.0%}",
        f"{errors[0] / errors[1]:.2f}",
    ]


def peer(parts: list[np.ndarray], hessian: torch.Tensor) -> torch.Tensor:
    """Return the rounded weights of ONNX Runtime's solver, with the settings that its quantizer gives it."""
    found = [
        onnxruntime_gptq(
            part.copy(), hessian.double().numpy().copy(), num_bits=4, group_size=GROUP, scheme="sym"
        )
        for part in parts
    ]
    return torch.from_numpy(np.concatenate(found, 1).astype(np.float32))


def seconds(work: Callable[[], object], turns: int = 3) -> float:
    """Return the least processor time of a few turns."""
    times = []
    for _ in range(turns):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    main()
