"""No file, however broken, ends in anything but a result or an error of the toolkit's own.

Small models are changed at random, field by field or byte by byte, and go through loading, estimates, 8 bits
and packing, in a process of their own: a file that hangs or ends it is found out, the next gets a new one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import random
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

SECONDS = 120
"""The longest that one file may take; a machine under load takes some seconds for most."""
SIZES = (0, 1, 2, 3, 7, -1, -5, 1 << 20, 1 << 31, 1 << 40, (1 << 62) + 1)
OPSETS = (0, 1, 6, 7, 9, 11, 13, 18, 20, 21, 23, 24, 99)
OPERATORS = (
    *(
        "Add",
        "Conv",
        "Gemm",
        "MatMul",
        "Relu",
        "Softmax",
        "Transpose",
        "Reshape",
        "Concat",
        "Split",
        "Gather",
    ),
    *("LSTM", "GRU", "BatchNormalization", "LayerNormalization", "Resize", "Slice", "Pad", "Einsum", "Loop"),
    *("Range", "ConstantOfShape", "Tile", "Expand", "OneHot", "NonZero", "TopK", "ScatterND", "SequenceAt"),
    *("If", "Scan", "DequantizeLinear", "QuantizeLinear", "ReduceSum", "Unsqueeze", "Upsample", "Nothing"),
)
MODELS = {
    "dense": """<ir_version: 8, opset_import: ["": 17]>
    g (float[N, 16] x) => (float[N, 8] y) <float[16, 32] a, float[32] b, float[32, 8] c> {
      h = Gemm(x, a, b) r = Relu(h) y = MatMul(r, c) }""",
    "images": """<ir_version: 7, opset_import: ["": 11]>
    g (float[N, 3, 8, 8] x) => (float[N, 5] y)
    <float[4, 3, 3, 3] a, float[4] s, float[4] t, float[4] m, float[4] v, float[64, 5] c> {
      h = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, a) n = BatchNormalization(h, s, t, m, v)
      r = Relu(n) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r) f = Flatten(p)
      y = MatMul(f, c) }""",
    "tokens": """<ir_version: 8, opset_import: ["": 17]>
    g (int64[N, 6] x) => (float[N, 6, 9] y) <float[9, 16] e, float[16] s, float[16] t, float[16, 48] a> {
      k = Gather(e, x) n = LayerNormalization(k, s, t) w = MatMul(n, a) q, u, v = Split <axis = 2> (w)
      z = Transpose <perm = [0, 2, 1]> (u) d = MatMul(q, z) o = Softmax <axis = -1> (d) m = MatMul(o, v)
      h = Transpose <perm = [1, 0]> (e) y = MatMul(m, h) }""",
    "steps": """<ir_version: 8, opset_import: ["": 14]>
    g (float[5, N, 6] x) => (float[5, 1, N, 8] y) <float[1, 32, 6] a, float[1, 32, 8] b, float[1, 64] c> {
      y = LSTM <hidden_size = 8> (x, a, b, c) }""",
    "loop": """<ir_version: 8, opset_import: ["": 17]>
    g (float[N, 8] x) => (float[N, 8] y) <float[8, 8] a> {
      t = Constant <value = bool {1}> () n = Constant <value_int = 3> ()
      l = Loop <body = b (int64 i, bool c, float[K, 8] s) => (bool d, float[K, 8] r) {
        d = Identity(c) m = MatMul(s, a) r = Tanh(m) }> (n, t, x)
      p = ReduceMax <keepdims = 0> (l) o = Cast <to = 9> (p)
      y = If <then_branch = u () => (float[K, 8] v) { v = MatMul(l, a) },
              else_branch = w () => (float[K, 8] z) { z = Neg(l) }> (o) }""",
    "integers": """<ir_version: 10, opset_import: ["": 21]>
    g (float[N, 8] x) => (float[N, 8] y)
    <int8[8, 8] a, float f = {0.1}, uint8 z = {3}, int64[2] k = {-1, 8}> {
      q = QuantizeLinear(x, f, z) d = DequantizeLinear(q, f, z) w = DequantizeLinear(a, f)
      h = MatMul(d, w) r = Reshape(h, k) y = Concat <axis = 1> (r) }""",
}


def small(text: str) -> ModelProto:
    """Return a model, with numbers for the initializers of which the text tells only the shape."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    given = {each.name for each in model.graph.initializer}
    for value in model.graph.value_info:
        if value.name not in given:
            kind = value.type.tensor_type
            shape = [dim.dim_value for dim in kind.shape.dim]
            array = np.abs(rng.normal(size=shape)).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return model


def feeds(model: ModelProto) -> dict[str, np.ndarray]:
    """Return one batch for an unchanged model."""
    (x,) = model.graph.input
    shape = [dim.dim_value or 4 for dim in x.type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    floats = x.type.tensor_type.elem_type == TensorProto.FLOAT
    return {x.name: rng.normal(size=shape).astype(np.float32) if floats else rng.integers(0, 9, shape)}


# One change each; a change that has nothing to change leaves the model as it is


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _nodes(model: ModelProto) -> list[NodeProto]:
    return [node for graph in _graphs(model.graph) for node in graph.node]


def _names(model: ModelProto) -> list[str]:
    made = [name for node in _nodes(model) for name in (*node.input, *node.output)]
    return [*made, "", "nowhere"]


def _any_value(model: ModelProto, rng: random.Random) -> onnx.ValueInfoProto:
    graph = rng.choice(list(_graphs(model.graph)))
    return rng.choice([*graph.input, *graph.output, *graph.value_info])


def element_type(model: ModelProto, rng: random.Random) -> None:
    _any_value(model, rng).type.tensor_type.elem_type = rng.choice((*range(24), 99))


def no_type(model: ModelProto, rng: random.Random) -> None:
    _any_value(model, rng).ClearField("type")


def other_kind_of_value(model: ModelProto, rng: random.Random) -> None:
    _any_value(model, rng).type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT


def size(model: ModelProto, rng: random.Random) -> None:
    dims = _any_value(model, rng).type.tensor_type.shape.dim
    if dims:
        rng.choice(dims).dim_value = rng.choice(SIZES)


def rank(model: ModelProto, rng: random.Random) -> None:
    dims = _any_value(model, rng).type.tensor_type.shape.dim
    if dims and rng.random() < 0.5:
        del dims[rng.randrange(len(dims))]
    else:
        dims.add().dim_value = rng.choice(SIZES)


def no_shape(model: ModelProto, rng: random.Random) -> None:
    _any_value(model, rng).type.tensor_type.ClearField("shape")


def value_name(model: ModelProto, rng: random.Random) -> None:
    _any_value(model, rng).name = rng.choice(_names(model))


def read_elsewhere(model: ModelProto, rng: random.Random) -> None:
    """Missing inputs, cycles, and inputs of the wrong type or rank."""
    node = rng.choice(_nodes(model))
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(_names(model))


def number_of_inputs(model: ModelProto, rng: random.Random) -> None:
    node = rng.choice(_nodes(model))
    if node.input and rng.random() < 0.6:
        del node.input[rng.randrange(len(node.input))]
    else:
        node.input.append(rng.choice(_names(model)))


def outputs(model: ModelProto, rng: random.Random) -> None:
    node = rng.choice(_nodes(model))
    match rng.randrange(3):
        case 0:
            node.output.append(rng.choice([*_names(model), "more"]))
        case 1:
            del node.output[:]
        case _:
            node.output[:] = [rng.choice(_names(model)) for _ in node.output]


def operator(model: ModelProto, rng: random.Random) -> None:
    rng.choice(_nodes(model)).op_type = rng.choice(OPERATORS)


def domain(model: ModelProto, rng: random.Random) -> None:
    rng.choice(_nodes(model)).domain = rng.choice(("com.microsoft", "ai.onnx", "ai.onnx.ml", "custom"))


def attribute(model: ModelProto, rng: random.Random) -> None:
    with_attributes = [node for node in _nodes(model) if node.attribute]
    node = rng.choice(with_attributes or _nodes(model))
    chosen = rng.choice(node.attribute) if node.attribute else node.attribute.add()
    match rng.randrange(6):
        case 0 if chosen in node.attribute:
            node.attribute.remove(chosen)
        case 1:
            chosen.name = rng.choice(("", "axis", "perm", "alpha", "to", "kernel_shape", "group", "odd"))
        case 2:
            chosen.type = rng.randrange(12)  # type: ignore[assignment]
        case 3:
            chosen.i = rng.choice(SIZES)
        case 4:
            chosen.ints[:] = [rng.choice(SIZES) for _ in range(rng.randrange(4))]
        case _:
            node.attribute.add().CopyFrom(chosen)


def integers(model: ModelProto, rng: random.Random) -> None:
    """Numbers of integer attributes, or another attribute in their place."""
    nodes = _nodes(model)
    found = [
        each
        for node in nodes
        for each in node.attribute
        if (each.ints or each.type == each.INT) and not each.name.startswith("value")  # a Loop would not end
    ]
    if not found:
        rng.choice(nodes).attribute.append(helper.make_attribute("axis", rng.choice(SIZES)))
        return
    chosen = rng.choice(found)
    if chosen.ints:
        chosen.ints[rng.randrange(len(chosen.ints))] = rng.choice(SIZES)
    else:
        chosen.i = rng.choice(SIZES)


def operator_set(model: ModelProto, rng: random.Random) -> None:
    match rng.randrange(3):
        case 0:
            del model.opset_import[:]
        case 1:
            model.opset_import.add().CopyFrom(helper.make_opsetid("com.microsoft", rng.choice(OPSETS)))
        case _:
            model.opset_import[0].version = rng.choice(OPSETS)


def file_version(model: ModelProto, rng: random.Random) -> None:
    model.ir_version = rng.choice((0, 1, 2, 3, 4, 7, 10, 12, 13, 99))


def weight_data(model: ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(model.graph.initializer or [TensorProto()])
    match rng.randrange(6):
        case 0:
            tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
        case 1:
            tensor.ClearField("raw_data")
        case 2:
            tensor.raw_data = rng.choice((b"\xff", b"\x00")) * len(tensor.raw_data)
        case 3:
            tensor.float_data.append(1.0)
        case 4:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=rng.choice(("", "nowhere.bin", "../x", "m.onnx")))
        case _:
            tensor.raw_data += b"\x01\x02\x03"


def weight_shape(model: ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(model.graph.initializer or [TensorProto()])
    match rng.randrange(4):
        case 0 if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)
        case 1:
            tensor.dims.append(rng.choice(SIZES))
        case 2:
            tensor.dims[:] = tensor.dims[::-1]
        case _:
            tensor.data_type = rng.choice((*range(24), 99))


def weight_name(model: ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(model.graph.initializer or [TensorProto()])
    match rng.randrange(3):
        case 0:
            tensor.name = rng.choice(_names(model))
        case 1:
            model.graph.initializer.add().CopyFrom(tensor)
        case _:
            del model.graph.initializer[:1]


def order(model: ModelProto, rng: random.Random) -> None:
    graph = rng.choice(list(_graphs(model.graph)))
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    match rng.randrange(3):
        case 0:
            rng.shuffle(nodes)
        case 1:
            nodes = nodes[:-1]
        case _:
            nodes += nodes[:1]
    del graph.node[:]
    graph.node.extend(nodes)


def interface(model: ModelProto, rng: random.Random) -> None:
    graph = rng.choice(list(_graphs(model.graph)))
    values = rng.choice((graph.input, graph.output))
    match rng.randrange(3):
        case 0:
            del values[:]
        case 1 if values:
            values.add().CopyFrom(values[0])
        case _:
            values.add(name=rng.choice(_names(model)))


FIELDS: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    *(element_type, no_type, other_kind_of_value, size, rank, no_shape, value_name, read_elsewhere, outputs),
    *(number_of_inputs, operator, domain, attribute, integers, operator_set, file_version, weight_data),
    *(weight_shape, weight_name, order, interface),
)


def mutated(number: int) -> tuple[str, bytes]:
    """Return the name of the model that the number stands for, and the bytes of a changed copy."""
    rng = random.Random(number)
    name = rng.choice(sorted(MODELS))
    model = small(MODELS[name])
    if rng.random() < 0.25:
        data = bytearray(model.SerializeToString())
        for _ in range(rng.choice((1, 1, 2, 4))):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 8, 16, 127, 128, 255, rng.randrange(256)))
        return name, bytes(data[: rng.randrange(len(data))] if rng.random() < 0.1 else data)
    changes = rng.choices(FIELDS, k=rng.choice((1, 1, 1, 2, 3)))
    for change in changes:
        with contextlib.suppress(ValueError, IndexError):  # an earlier change has left nothing to change
            change(model, rng)
    return f"{name}: {', '.join(change.__name__ for change in changes)}", model.SerializeToString()


# What is done with each file


def tried(file: Path, batch: dict[str, np.ndarray]) -> dict[str, str]:
    """Take a file through everything; return the exceptions that are none of the toolkit's own, by step."""
    import compress
    from compress.codec import pack
    from compress.errors import CompressError
    from compress.passes import Int8

    steps: dict[str, Callable[[], object]] = {
        "eyeriss-v1": lambda: compress.estimate(file, "eyeriss-v1"),
        "cpu": lambda: compress.estimate(file, "cpu"),
        "int8": lambda: compress.Pipeline([Int8()])(compress.load(file, calibration=[batch])),
        "pack": lambda: pack(file, file.with_suffix(".packed")),
    }
    faults = {}
    for step, act in steps.items():
        try:
            act()
        except CompressError:
            pass
        except Exception:  # of any kind: that is what is sought
            faults[step] = traceback.format_exc()
    return faults


def main(first: int, last: int) -> None:
    """Try files by number; print a line for each, and end at one that takes too long."""
    batches = {name: feeds(small(text)) for name, text in MODELS.items()}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, last):
            what, data = mutated(number)
            file = Path(folder, "m.onnx")
            file.write_bytes(data)
            print(json.dumps([number, what]), flush=True)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            faults = tried(file, batches[what.partition(":")[0]])
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps([number, what, faults]), flush=True)


def survivors(first: int, last: int) -> tuple[int, list[str]]:
    """Try files in processes of their own; return how many were tried, and what went wrong."""
    wrong, tried = [], 0
    while first < last:
        command = [sys.executable, __file__, str(first), str(last)]
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
        done = [line for line in lines if len(line) == 3]
        tried += len(done)
        for number, what, faults in done:
            wrong += [f"{number} ({what}), {step}: {text}" for step, text in faults.items()]
        first = max((line[0] for line in lines), default=first) + 1
        if len(done) < len(lines) - len(done) or not lines:
            tried += 1
            wrong.append(f"{lines[-1] if lines else first}: the process ended: {run.stderr[-3000:]}")
    return tried, wrong


def test_a_hundred_broken_files_end_in_messages() -> None:
    tried, wrong = survivors(0, 100)
    assert not wrong, f"{len(wrong)} of {tried}:\n\n" + "\n".join(wrong[:5])
    assert tried == 100


@pytest.mark.slow
def test_two_thousand_broken_files_end_in_messages() -> None:
    tried, wrong = survivors(100, 2100)
    assert not wrong, f"{len(wrong)} of {tried}:\n\n" + "\n".join(wrong[:5])
    assert tried == 2000


def test_changes_are_the_same_each_time_and_leave_some_files_valid() -> None:
    assert mutated(7) == mutated(7)
    valid = 0
    for number in range(200):
        try:
            onnx.checker.check_model(ModelProto.FromString(mutated(number)[1]))
            valid += 1
        except (onnx.checker.ValidationError, DecodeError, UnicodeDecodeError):
            pass
    assert 20 < valid < 150


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
