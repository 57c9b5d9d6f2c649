"""How fast GPTQ is: ours against the one that ONNX Runtime ships, and against this machine's matrix products.

``python benchmarks/gptq_speed.py [--layers 2]``

Both solvers get the weights of a layer of SmolLM2 (benchmarks/models.txt) and the second moments of its inputs
on calibration data, and round to 4 bits in symmetric groups of 64. Times are processor seconds on
one thread, the least of three turns; ONNX Runtime's runs once. The solver's rate counts ``K³/3`` for the
Cholesky factor and ``K²N`` for the feedback of errors, whatever else it does.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = (
    "1"  # before numpy and torch start theirs
)

import time
from collections.abc import Callable
from itertools import islice

import numpy as np
import torch
from onnxruntime.quantization.neural_compressor.weight_only import gptq as onnxruntime_gptq
from quantization import prepare
from quantization_methods import read_batches
from rich.console import Console
from rich.table import Table
from zoo import entry

import compress
from compress.graph.layers import Layer
from compress.graph.linear import linear_layers, second_moments
from compress.numerics.awq import output_error
from compress.numerics.gptq import gptq
from compress.numerics.granularity import PerGroup

GROUP = 64
PRODUCT = 1024
"""Side of the matrices whose product gives this machine's rate."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=1, help="how many blocks of the network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = prepare(entry("smollm2"))
    model = compress.load(folder / "float.onnx", calibration=read_batches(folder / "calibration.npz"))
    chosen = list(islice(linear_layers(model.graph), 7 * options.layers))
    moments = second_moments(model, chosen)
    table = Table(title="GPTQ, one thread, processor seconds")
    for column in ("layer", "K x N", "ours", "ORT", "ORT / ours", "GFLOP/s", "of sgemm", "error, ORT / ours"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for layer in chosen:
        table.add_row(*row(layer, moments[layer.name].matrix()))
    Console(width=120).print(table)


def row(layer: Layer, hessian: torch.Tensor) -> list[str]:
    """Return what one layer measured."""
    weight = torch.from_numpy(np.array(layer.array))
    features, outputs = weight.shape
    left = torch.randn(PRODUCT, PRODUCT)
    ours = seconds(lambda: gptq(weight, hessian, PerGroup(GROUP), 4, signed=False, method="minmax"))
    product = seconds(lambda: left @ left)
    theirs = seconds(lambda: peer(weight, hessian), turns=1)
    found = gptq(weight, hessian, PerGroup(GROUP), 4, signed=False).dequantize()
    errors = [output_error(weight - each, hessian) for each in (peer(weight, hessian), found)]
    rate = (features**3 / 3 + features**2 * outputs) / ours / 1e9
    peak = 2 * PRODUCT**3 / product / 1e9
    return [
        layer.weight.name or "",
        f"{features} x {outputs}",
        f"{ours:.3f}",
        f"{theirs:.3f}",
        f"{theirs / ours:.1f}",
        f"{rate:.1f}",
        f"{rate / peak:.0%}",
        f"{errors[0] / errors[1]:.2f}",
    ]


def peer(weight: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Return the rounded weight of ONNX Runtime's solver, with the settings that its quantizer gives it."""
    found = onnxruntime_gptq(
        weight.numpy().copy(), hessian.double().numpy().copy(), num_bits=4, group_size=GROUP, scheme="sym"
    )
    return torch.from_numpy(found.astype(np.float32))


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
