"""Set int8-static beside onnxruntime.quantization on graphs of the kinds that integer kernels stumble over.

``python benchmarks/integer_kernels.py [--graphs clip,split] [--densenet121]``: for each graph the time of one
run over float's, the three taking turns in one process on one thread, the signal-to-noise ratio against
float, and how many operators of ONNX Runtime's optimized graph compute on integers and on floats.
``--densenet121`` adds the network of that name that comes with the onnx package.

Both tools use 8-bit asymmetric activations and signed weights per channel, of 7 bits where this processor's
sums of products would saturate; onnxruntime's preprocessing runs first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import compress
from compress.cpu import saturates
from compress.diagnose.agreement import agreement
from compress.graph import facts
from compress.graph.optimized import as_run
from compress.graph.session import session
from compress.passes import Int8Static

CHANNELS, SIDE, REPEATS = 32, 28, 4
ROUNDS = 40
CALIBRATION_BATCHES = 4
FREE = ("QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape", "ReorderInput", "ReorderOutput")
"""Operators that are neither: they convert or only move."""


class Builder:
    """A graph of one image in and one out, built node by node."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(1)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """Return the name of a new random weight."""
        spread = np.sqrt(2 / max(1, np.prod(shape[1:]))) if scale is None else scale
        return self.constant((self.random.normal(size=shape) * spread).astype(np.float32))

    def constant(self, content: Any) -> str:
        """Return the name of a new constant."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(content), name))
        return name

    def node(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Return the name of a new node's output, or the names of all."""
        names = [f"v{len(self.nodes)}_{number}" for number in range(outputs)]
        name = f"{op_type}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int = 3, *, bias: bool = True, **more: Any
    ) -> str:
        """Return the output of a convolution that keeps the size of images."""
        weight = self.weight(outputs, inputs // more.get("group", 1), kernel, kernel)
        given = [x, weight, self.weight(outputs, scale=0.1)] if bias else [x, weight]
        result: str = self.node("Conv", *given, pads=[kernel // 2] * 4, kernel_shape=[kernel] * 2, **more)
        return result

    def normalized(self, x: str, channels: int) -> str:
        """Return x through BatchNormalization and Relu."""
        factor, spread = (
            self.constant(self.random.uniform(0.5, 1.5, channels).astype(np.float32)) for _ in range(2)
        )
        shift, mean = (self.weight(channels, scale=0.1) for _ in range(2))
        result: str = self.node("Relu", self.node("BatchNormalization", x, factor, shift, mean, spread))
        return result

    def model(self, last: str) -> onnx.ModelProto:
        """Return the graph, with a convolution at its end."""
        self.nodes[-1].output[list(self.nodes[-1].output).index(last)] = "y"
        image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", CHANNELS, SIDE, SIDE])
        output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "g", [image], [output], self.weights)
        opset = helper.make_opsetid("", 17)
        return onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[opset], ir_version=8)
        )


def repeated(block: Callable[[Builder, str], str]) -> onnx.ModelProto:
    """Return blocks in a row, and a convolution."""
    builder, x = Builder(), "x"
    for _ in range(REPEATS):
        x = block(builder, x)
    return builder.model(builder.conv(x, CHANNELS, CHANNELS))


def clip(b: Builder, x: str) -> str:
    """A convolution cut off at -1 and 1."""
    ends = (b.constant(np.float32(end)) for end in (-1, 1))
    result: str = b.node("Clip", b.conv(x, CHANNELS, CHANNELS), *ends)
    return result


def constant(b: Builder, x: str) -> str:
    """A convolution whose bias is an Add."""
    bias = b.weight(1, CHANNELS, 1, 1, scale=0.3)
    result: str = b.node("Relu", b.node("Add", b.conv(x, CHANNELS, CHANNELS, bias=False), bias))
    return result


def split(b: Builder, x: str) -> str:
    """Half of the channels through convolutions, and all parts joined."""
    half = CHANNELS // 2
    first, second = b.node("Split", x, outputs=2, axis=1)
    turned = b.node("Relu", b.conv(b.node("Relu", b.conv(second, half, half)), half, half))
    whole = b.node("Concat", first, second, b.node("Add", turned, second), axis=1)
    result: str = b.node("Relu", b.conv(whole, 3 * half, CHANNELS, 1))
    return result


def shuffle(b: Builder, x: str) -> str:
    """Half of the channels through convolutions, one of them depthwise; then the channels take turns."""
    half = CHANNELS // 2
    first, second = b.node("Split", x, outputs=2, axis=1)
    deep = b.conv(b.node("Relu", b.conv(second, half, half, 1)), half, half, group=half)
    x = b.node("Concat", first, b.node("Relu", b.conv(deep, half, half, 1)), axis=1)
    x = b.node("Reshape", x, b.constant(np.array([0, 2, half, SIDE, SIDE])))
    x = b.node("Transpose", x, perm=[0, 2, 1, 3, 4])
    result: str = b.node("Reshape", x, b.constant(np.array([0, CHANNELS, SIDE, SIDE])))
    return result


def hardswish(b: Builder, x: str) -> str:
    """A convolution times its HardSigmoid."""
    x = b.conv(x, CHANNELS, CHANNELS)
    result: str = b.node("Mul", x, b.node("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    return result


def shared() -> onnx.ModelProto:
    """Convolutions that share one weight."""
    builder, x = Builder(), "x"
    weight, bias = builder.weight(CHANNELS, CHANNELS, 3, 3), builder.weight(CHANNELS, scale=0.1)
    for _ in range(REPEATS):
        x = builder.node("Relu", builder.node("Conv", x, weight, bias, pads=[1] * 4))
    return builder.model(builder.conv(x, CHANNELS, CHANNELS))


def densenet() -> onnx.ModelProto:
    """A block whose layers read all before them, and a transition."""
    b, growth = Builder(), CHANNELS // 2
    x, channels = b.conv("x", CHANNELS, CHANNELS, bias=False), CHANNELS
    for _ in range(REPEATS):
        narrow = b.conv(b.normalized(x, channels), channels, 2 * CHANNELS, 1, bias=False)
        new = b.conv(b.normalized(narrow, 2 * CHANNELS), 2 * CHANNELS, growth, bias=False)
        x, channels = b.node("Concat", x, new, axis=1), channels + growth
    x = b.conv(b.normalized(x, channels), channels, CHANNELS, 1, bias=False)
    x = b.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return b.model(b.conv(b.normalized(x, CHANNELS), CHANNELS, CHANNELS, 1))


GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    "clip": lambda: repeated(clip),
    "shared": shared,
    "split": lambda: repeated(split),
    "constant": lambda: repeated(constant),
    "shuffle": lambda: repeated(shuffle),
    "hardswish": lambda: repeated(hardswish),
    "densenet": densenet,
}


def densenet121() -> onnx.ModelProto:
    """The network of that name of the onnx package; its weights are constants that the graph computes.

    It has a new operator set and no inputs that are initializers, as the peer needs it.
    """
    proto = onnx.load(Path(onnx.__file__).parent / "backend/test/data/light/light_densenet121.onnx")
    constant = {each.name for each in proto.graph.initializer}
    fed = [each for each in proto.graph.input if each.name not in constant]
    del proto.graph.input[:]
    proto.graph.input.extend(fed)
    proto.ir_version = 8
    return onnx.version_converter.convert_version(proto, 17)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches, as onnxruntime.quantization asks for them."""

    def __init__(self, batches: list[dict[str, np.ndarray]]) -> None:
        self.left: Iterator[dict[str, np.ndarray]] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch."""
        return next(self.left, None)


def batches_of(path: Path, count: int) -> list[dict[str, np.ndarray]]:
    """Return random batches for the input of a model."""
    (given,) = session(path).get_inputs()
    shape = [size if isinstance(size, int) else 2 for size in given.shape]
    drawn = (np.random.default_rng(number).normal(size=shape) for number in range(count))
    return [{given.name: each.astype(np.float32)} for each in drawn]


def quantize_by_peer(source: Path, target: Path, batches: list[dict[str, np.ndarray]]) -> None:
    """Quantize with onnxruntime's own static tool, in the setting that is fastest on x86."""
    prepared = source.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(
        prepared,
        target,
        Reader(batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=saturates(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def census(path: Path) -> tuple[int, int]:
    """Return how many operators of the optimized graph compute on integers, and how many on floats."""
    codes: set[str | None] = set()
    integer = floats = 0
    for node in as_run(path).graph:
        moves = node.inputs and node.inputs[0] is not None and node.inputs[0].name in codes
        computes = node.op_type.startswith("QLinear") or facts.of(node).multiplies_codes
        if node.op_type == "QuantizeLinear" or (node.op_type != "DequantizeLinear" and (computes or moves)):
            codes.update(output.name for output in node.outputs)
        integer += computes
        floats += not (computes or moves or node.op_type in FREE)
    return integer, floats


def measure(name: str, proto: onnx.ModelProto, folder: Path, rounds: int) -> None:
    """Quantize with both, time the three in turn, and print a line for each."""
    paths = {kind: folder / f"{name}.{kind}.onnx" for kind in ("float", "ours", "peer")}
    onnx.save(proto, paths["float"])
    batches = batches_of(paths["float"], CALIBRATION_BATCHES)
    Int8Static()(compress.load(paths["float"], calibration=batches)).save(paths["ours"])
    quantize_by_peer(paths["float"], paths["peer"], batches)
    opened = {kind: session(path, threads=1) for kind, path in paths.items()}
    times: dict[str, list[float]] = {kind: [] for kind in opened}
    for _ in range(rounds):
        for kind, each in opened.items():
            start = time.process_time()
            each.run(None, batches[0])
            times[kind].append(time.process_time() - start)
    floats = float(np.min(times["float"]))
    print(f"{name}: float {floats * 1e3:.2f} ms")
    for kind in ("ours", "peer"):
        snr = agreement(
            lambda feeds, kind=kind: opened[kind].run(None, feeds),  # type: ignore[misc]
            lambda feeds: opened["float"].run(None, feeds),
            batches,
        ).snr_db
        integer, in_float = census(paths[kind])
        ratio = float(np.min(times[kind])) / floats
        print(
            f"  {kind}: {ratio:.2f} of the time, {snr:.1f} dB, {integer} integer, {in_float} float operators"
        )


def main() -> None:
    """Measure what the options name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--graphs", default=",".join(GRAPHS))
    parser.add_argument("--densenet121", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in filter(None, options.graphs.split(",")):
            measure(name, GRAPHS[name](), Path(folder), options.rounds)
        if options.densenet121:
            measure("densenet121", densenet121(), Path(folder), options.rounds // 8)


if __name__ == "__main__":
    main()
