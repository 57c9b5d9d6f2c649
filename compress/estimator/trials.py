"""Small networks on which the runtime's kernels are timed: layers of many shapes, in floats and integers.

They are drawn at random, with the proportions of real networks and nothing of their weights: chains, so that
a layer finds its inputs where another has left them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array: TypeAlias = np.ndarray
CHANNELS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Widths of convolutional layers."""
CHAINED = (32, 64, 128, 256, 512, 1024, 2048)
"""Widths of products in chains."""
WIDTHS = (64, 128, 192, 256, 384, 512, 768)
"""Widths of linear layers."""
ACTIVATIONS = ("Relu", "Clip", "none", "HardSwish", "Silu")
SHARES = (0.5, 0.15, 0.15, 0.1, 0.1)
"""Activations behind convolutions, and how often each is drawn."""
POINTWISE = ("Sigmoid", "Tanh", "Relu", "Erf", "Sqrt", "Exp", "Neg", "HardSigmoid", "HardSwish", "LeakyRelu")
"""Operators on single elements."""
ROWS = (1, 1, 4, 32, 128)
"""Rows of chains of products."""
IMAGES, TEXTS, MEMORIES = 6, 4, 4
"""Networks of each kind."""


class Builder:
    """Puts a network together; values go by name."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self._names = map(str, itertools.count())

    def input(self, *shape: int) -> str:
        """Return a new input of floats."""
        name = f"input{next(self._names)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, content: Array) -> str:
        """Return a stored tensor."""
        name = f"stored{next(self._names)}"
        self.stored.append(numpy_helper.from_array(content, name))
        return name

    def number(self, content: float) -> str:
        """Return a stored float."""
        return self.constant(np.array(content, np.float32))

    def normal(self, *shape: int) -> str:
        """Return stored floats, scaled so that products keep their size."""
        numbers = self.random.standard_normal(shape, np.float32)
        return self.constant(numbers / np.float32(np.sqrt(np.prod(shape[1:]) or 1)))

    def add(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Return the output of a new node."""
        name = f"{op_type}{next(self._names)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def coded(self, value: str) -> str:
        """Return a value restored from 8-bit codes."""
        grid = self.number(0.05), self.constant(np.array(128, np.uint8))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", value, *grid), *grid)

    def codes_of_each_run(self, value: str) -> tuple[str, str, str]:
        """Return 8-bit codes of a value in its own range, their scale and their zero; made once."""
        outputs = (f"{value}.codes", f"{value}.scale", f"{value}.zero")
        if outputs[0] not in (node.name for node in self.nodes):
            self.nodes.append(helper.make_node("DynamicQuantizeLinear", [value], outputs, name=outputs[0]))
        return outputs

    def coded_weight(self, *shape: int, axis: int = 0) -> str:
        """Return a weight restored from 8-bit integers, with a scale a channel."""
        count = shape[axis]
        integers = self.constant(self.random.integers(-60, 61, shape).astype(np.int8))
        scales = self.constant(np.full(count, 0.01, np.float32))
        zeros = self.constant(np.zeros(count, np.int8))
        return self.add("DequantizeLinear", integers, scales, zeros, axis=axis)

    def model(self, *outputs: str) -> onnx.ModelProto:
        """Return the network."""
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "trial", self.inputs, ends, self.stored)
        sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=sets, ir_version=9)


def networks() -> Iterator[onnx.ModelProto]:
    """Yield the networks; the same ones every time."""
    for seed in range(IMAGES):
        for integers in (False, True):
            yield _Images(seed, integers).network()
            yield _Images(seed, integers, fewer=1 + 2 * seed % 7).network()
            yield _sound(seed, integers)
    for linear in (_plain, _each_run, _calibrated, _blocks_of_4, _blocks_of_8):
        for seed in range(TEXTS):
            yield _text(seed, linear)
        for seed, rows in enumerate(ROWS):
            yield _chain(seed, rows, linear)
    for seed in range(MEMORIES):
        yield _memory(seed, integers=False)
        yield _memory(seed, integers=True)
    for size in (1 << 12, 1 << 15, 1 << 18, 1 << 20):
        yield _elements(size)


class _Images(Builder):
    """A convolutional network: spatial, depthwise and pointwise layers, strides, sums, pooling."""

    def __init__(self, seed: int, integers: bool, fewer: int = 0) -> None:
        super().__init__(seed)
        self.integers = integers
        self.widths = [each - fewer for each in CHANNELS]  # pruned ones fill no blocks

    def network(self) -> onnx.ModelProto:
        draw = self.random
        size = int(draw.choice([64, 96, 128, 160]))
        value = self.input(1, 3, size, size)
        width = int(draw.choice(self.widths[:3]))
        value = self._convolution(self._codes(value), 3, width, 3, stride=2)
        size //= 2
        while size > 4:
            for _ in range(int(draw.integers(1, 4))):
                value = self._block(value, width)
            wider = int(draw.choice([each for each in self.widths if each >= width][:3]))
            if draw.random() < 0.3:
                value = self.add("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
            else:
                kernel = int(draw.choice([3, 5]))
                value = self._convolution(value, width, width, kernel, stride=2, groups=width)
            value = self._convolution(value, width, wider, 1)
            width, size = wider, (size + 1) // 2
        value = self.add("Flatten", self.add("GlobalAveragePool", value))
        return self.model(self.add("MatMul", value, self.normal(width, 1000)))

    def _block(self, value: str, width: int) -> str:
        kind = self.random.choice(["pointwise", "depthwise", "spatial", "expanded"])
        if kind == "pointwise":
            return self._convolution(value, width, width, 1)
        if kind == "depthwise":
            return self._convolution(value, width, width, int(self.random.choice([3, 5])), groups=width)
        if kind == "spatial" or width > self.widths[7]:
            inside = self._convolution(value, width, width, int(self.random.choice([3, 3, 1])))
        else:
            wide = width * int(self.random.choice([2, 4, 6]))
            inside = self._convolution(value, width, wide, 1)
            inside = self._convolution(inside, wide, wide, 3, groups=wide)
            inside = self._convolution(inside, wide, width, 1)
        return self._codes(self.add("Add", inside, value))

    def _convolution(
        self, value: str, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> str:
        shape = (after, before // groups, kernel, kernel)
        weight = self.coded_weight(*shape) if self.integers else self.normal(*shape)
        pads, strides, sizes = [kernel // 2] * 4, [stride] * 2, [kernel] * 2
        value = self.add("Conv", value, weight, group=groups, kernel_shape=sizes, pads=pads, strides=strides)
        chosen = self.random.choice(ACTIVATIONS, p=SHARES)
        if chosen == "Clip":
            ends = (self.number(end) for end in (0, 6))
            value = self.add("Clip", value, *ends)
        elif chosen == "Silu" and not self.integers:
            value = self.add("Mul", value, self.add("Sigmoid", value))
        elif chosen == "Relu" or (chosen == "HardSwish" and not self.integers):
            value = self.add(chosen, value)
        return self._codes(value)

    def _codes(self, value: str) -> str:
        return self.coded(value) if self.integers else value


def _sound(seed: int, integers: bool) -> onnx.ModelProto:
    """Return convolutions along one axis, of long kernels, as those of sounds are."""
    builder = Builder(seed)
    draw = builder.random
    pieces, length = ((1, 256), (1, 1024), (16, 256), (128, 16))[seed % 4]
    width = int(draw.choice([16, 32, 64, 128]))
    value = builder.input(pieces, 1, length)
    value = builder.coded(value) if integers else value
    before = 1
    for _ in range(4):
        kernel = int(draw.choice([3, 3, 5, 9, 16, 64] if pieces == 1 else [3, 5, 9]))
        weight = (builder.coded_weight if integers else builder.normal)(width, before, kernel)
        pads, strides = [(kernel - 1) // 2, kernel // 2], [int(draw.choice([1, 2]))]
        value = builder.add("Conv", value, weight, kernel_shape=[kernel], pads=pads, strides=strides)
        value = builder.add("Relu", value)
        value = builder.coded(value) if integers else value
        before, width = width, int(draw.choice([width, 2 * width]))
    return builder.model(value)


Linear: TypeAlias = Callable[[Builder, str, int, int], str]
"""Adds the product of a value with a weight of so many inputs and outputs."""


def _plain(builder: Builder, value: str, before: int, after: int) -> str:
    return builder.add("MatMul", value, builder.normal(before, after))


def _calibrated(builder: Builder, value: str, before: int, after: int) -> str:
    weight = builder.coded_weight(before, after, axis=1)
    return builder.coded(builder.add("MatMul", builder.coded(value), weight))


def _each_run(builder: Builder, value: str, before: int, after: int) -> str:
    codes, scale, zero = builder.codes_of_each_run(value)
    integers = builder.random.integers(-60, 61, (before, after)).astype(np.int8)
    zeros = builder.constant(np.zeros(after, np.int8))
    product = builder.add("MatMulInteger", codes, builder.constant(integers), zero, zeros)
    product = builder.add("Cast", product, to=TensorProto.FLOAT)
    both = builder.add("Mul", scale, builder.constant(np.full(after, 0.01, np.float32)))
    return builder.add("Mul", product, both)


def _blocks(builder: Builder, value: str, before: int, after: int, bits: int) -> str:
    rows = builder.random.integers(0, 256, (after, before // 32, 4 * bits)).astype(np.uint8)
    scales = np.full(after * before // 32, 0.01, np.float32)
    sizes = {"K": before, "N": after, "bits": bits, "block_size": 32, "accuracy_level": 4}
    inputs = builder.constant(rows), builder.constant(scales)
    return builder.add("MatMulNBits", value, *inputs, domain="com.microsoft", **sizes)


def _blocks_of_4(builder: Builder, value: str, before: int, after: int) -> str:
    return _blocks(builder, value, before, after, 4)


def _blocks_of_8(builder: Builder, value: str, before: int, after: int) -> str:
    return _blocks(builder, value, before, after, 8)


def _chain(seed: int, rows: int, linear: Linear) -> onnx.ModelProto:
    """Return products with weights of many sizes, one behind the other."""
    builder = Builder(seed)
    widths = [32, *(int(width) for width in builder.random.choice(CHAINED, 8))]
    value = builder.input(rows, widths[0])
    for before, after in itertools.pairwise(widths):
        value = builder.add("Relu", linear(builder, value, before, after))
    return builder.model(value)


def _text(seed: int, linear: Linear) -> onnx.ModelProto:
    """Return a transformer's blocks: products with weights, attention, normalization, activations."""
    builder = Builder(seed)
    draw = builder.random
    width = int(draw.choice(WIDTHS[1:]))
    tokens, heads = int((1, 16, 128, 256)[seed % 4]), width // 64
    value = builder.input(1, tokens, width)
    for _ in range(2):
        parts = []
        for _ in range(3):
            part = linear(builder, value, width, width)
            part = builder.add("Reshape", part, builder.constant(np.array([1, tokens, heads, 64])))
            parts.append(builder.add("Transpose", part, perm=[0, 2, 1, 3]))
        keys = builder.add("Transpose", parts[1], perm=[0, 1, 3, 2])
        scores = builder.add("MatMul", parts[0], keys)
        scores = builder.add("Mul", scores, builder.number(0.125))
        mixed = builder.add("MatMul", builder.add("Softmax", scores), parts[2])
        mixed = builder.add("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = builder.add("Reshape", mixed, builder.constant(np.array([1, tokens, width])))
        value = _normalized(builder, builder.add("Add", linear(builder, mixed, width, width), value), width)
        wide = builder.add("Add", linear(builder, value, width, 4 * width), builder.normal(4 * width))
        inner = builder.add("Erf", builder.add("Mul", wide, builder.number(0.7)))
        inner = builder.add("Add", inner, builder.number(1))
        inner = builder.add("Mul", builder.add("Mul", wide, inner), builder.number(0.5))
        value = builder.add("Add", linear(builder, inner, 4 * width, width), value)
        value = _normalized(builder, value, width)
    return builder.model(value)


def _normalized(builder: Builder, value: str, width: int) -> str:
    return builder.add("LayerNormalization", value, builder.normal(width), builder.normal(width), axis=-1)


def _memory(seed: int, integers: bool) -> onnx.ModelProto:
    """Return an LSTM and a GRU over a sequence; the GRU has no kernel for integers."""
    builder = Builder(seed)
    features, hidden, steps = 64, (32, 128, 256, 512)[seed % 4], (50, 20, 20, 10)[seed % 4]
    value = builder.input(steps, 1, features)
    if integers:
        w, r = (_coded_gates(builder, rows, 4 * hidden) for rows in (features, hidden))
        inputs = (value, w[0], r[0], *[""] * 5, *w[1:], *r[1:])
        return builder.model(
            builder.add("DynamicQuantizeLSTM", *inputs, domain="com.microsoft", hidden_size=hidden)
        )
    ends = []
    for op_type, gates in (("LSTM", 4), ("GRU", 3)):
        parts = (builder.normal(1, gates * hidden, columns) for columns in (features, hidden))
        ends.append(builder.add(op_type, value, *parts, hidden_size=hidden))
    return builder.model(*ends)


def _coded_gates(builder: Builder, rows: int, columns: int) -> tuple[str, str, str]:
    """Return the 8-bit integers of an LSTM's weight, their scales and their zeros."""
    integers = builder.random.integers(0, 256, (1, rows, columns)).astype(np.uint8)
    scales, zeros = np.full((1, columns), 0.01, np.float32), np.full((1, columns), 128, np.uint8)
    return builder.constant(integers), builder.constant(scales), builder.constant(zeros)


def _elements(size: int) -> onnx.ModelProto:
    """Return a chain of operators that work element by element, and of some that move them."""
    builder = Builder(size)
    sides = size // 64, 8, 8
    value = start = builder.input(1, *sides)
    for op_type in POINTWISE:
        value = builder.add(op_type, value)
        value = builder.add("Transpose", value, perm=[0, 2, 3, 1])
        value = builder.add("Reshape", value, builder.constant(np.array([1, *sides])))
    for op_type in ("Add", "Mul", "Sub", "Div", "Max"):
        value = builder.add(op_type, value, start)
    value = builder.coded(value)
    mean = builder.add("ReduceMean", value, axes=[2, 3], keepdims=1)
    value = builder.add("Concat", builder.add("Sub", value, mean), start, axis=1)
    bounds = (builder.constant(np.array([place])) for place in (0, sides[0], 1))
    halves = builder.add("Slice", value, *bounds)
    pooled = builder.add("AveragePool", halves, kernel_shape=[2, 2], strides=[2, 2])
    sizes = builder.constant(np.array([1, 1, 2, 2], np.float32))
    wide = builder.add("Resize", pooled, "", sizes, mode="nearest")
    row = builder.add("Gather", wide, builder.constant(np.arange(sides[0] // 2)), axis=1)
    return builder.model(builder.add("Softmax", row, axis=-1))
