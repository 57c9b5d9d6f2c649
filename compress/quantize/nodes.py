"""Quantized tensors as ONNX nodes: Q/DQ pairs, DequantizeLinear of weights, MatMulNBits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx_ir as ir

from compress.numerics.granularity import PerAxis, PerGroup

if TYPE_CHECKING:
    from compress.numerics.affine import Quantized

MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""


def initializer(graph: ir.Graph, name: str, content: np.ndarray) -> ir.Value:
    """Add an initializer under `name`, or under the first free ``name_1``, ``name_2``, …

    One that has the name and the content already is returned: two readers of a weight share it.
    """
    free = name
    number = 0
    array = np.array(content, order="C")
    tensor = ir.tensor(array)
    while free in graph.initializers:
        if _same(graph.initializers[free].const_value, tensor):
            return graph.initializers[free]
        number += 1
        free = f"{name}_{number}"
    tensor.name = free
    value = ir.Value(
        name=free, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype)
    )
    graph.register_initializer(value)
    return value


def _same(one: ir.TensorProtocol | None, other: ir.TensorProtocol) -> bool:
    return (
        one is not None
        and (one.dtype, one.shape) == (other.dtype, other.shape)
        and one.tobytes() == other.tobytes()
    )


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Return integers in the numpy type that ONNX stores `bits` bits in (4-bit types pack on saving)."""
    if bits > 4:
        return values
    return values.astype(ml_dtypes.int4 if values.dtype.kind == "i" else ml_dtypes.uint4)


def scales(graph: ir.Graph, name: str, content: np.ndarray) -> ir.Value:
    """Add a weight's scales and return them as float32; the runtime casts float16 as it loads the model."""
    stored = initializer(graph, f"{name}.scale", content)
    return stored if stored.dtype == ir.DataType.FLOAT else _floats(graph, stored)


def dequantize_weight(graph: ir.Graph, weight: ir.Value, quantized: Quantized) -> ir.Value:
    """Store `weight` as integers and return the output of the DequantizeLinear that reads them.

    Every reader of the weight reads the DequantizeLinear instead; the float initializer is removed.
    """
    granularity = quantized.granularity
    attributes: dict[str, int] = {}
    if isinstance(granularity, PerAxis | PerGroup):
        attributes["axis"] = granularity.axis
    if isinstance(granularity, PerGroup):
        attributes["block_size"] = granularity.size
    name = weight.name or ""
    inputs = [
        initializer(graph, f"{name}.quantized", packed(quantized.values.numpy(), quantized.bits)),
        initializer(graph, f"{name}.scale", quantized.scale.numpy()),
        # The runtime fuses a Gemm only where zero points are written out, zeros included.
        initializer(graph, f"{name}.zero_point", packed(quantized.zero_point.numpy(), quantized.bits)),
    ]
    output = ir.Value(name=f"{name}.float", shape=weight.shape, type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("DequantizeLinear", inputs, attributes, outputs=[output], name=f"{name}.dequantize")
    put_first(graph, node)
    weight.replace_all_uses_with(output)
    del graph.initializers[name]
    return output


def expand_weight(graph: ir.Graph, weight: ir.Value, quantized: Quantized) -> None:
    """Store `weight` as integers, and compute the floats in plain arithmetic that runtimes fold as they load.

    The file is small and the model runs as fast as in float, and moves as many bytes: a
    DequantizeLinear in this place would be computed at every run.
    """
    name = weight.name or ""
    values, scale, zero_point = _broadcasting(quantized)
    steps = _floats(graph, initializer(graph, f"{name}.quantized", packed(values, quantized.bits)))
    if zero_point.any():
        middle = initializer(graph, f"{name}.zero_point", packed(zero_point, quantized.bits))
        steps = _first(graph, "Sub", [steps, _floats(graph, middle)])
    output = _first(graph, "Mul", [steps, scales(graph, name, scale)])
    shape = quantized.values.shape
    if values.shape != tuple(shape):
        whole = initializer(graph, f"{name}.shape", np.array(shape, np.int64))
        output = _first(graph, "Reshape", [output, whole])
    output.name, output.shape, output.type = f"{name}.expanded", weight.shape, weight.type
    weight.replace_all_uses_with(output)
    del graph.initializers[name]


def _broadcasting(quantized: Quantized) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values, scales and zero points that broadcast: groups get an axis of their own."""
    values, scale, zero_point = (
        each.numpy() for each in (quantized.values, quantized.scale, quantized.zero_point)
    )
    granularity, shape = quantized.granularity, values.shape
    if isinstance(granularity, PerAxis):
        others = tuple(axis for axis in range(len(shape)) if axis != granularity.axis % len(shape))
        return values, np.expand_dims(scale, others), np.expand_dims(zero_point, others)
    if isinstance(granularity, PerGroup) and scale.shape[granularity.axis] > 1:
        axis, groups = granularity.axis % len(shape), scale.shape[granularity.axis]
        if groups * granularity.size != shape[axis]:
            raise ValueError(f"{shape[axis]} channels do not divide into groups of {granularity.size}")
        values = values.reshape(*shape[:axis], groups, granularity.size, *shape[axis + 1 :])
        return values, np.expand_dims(scale, axis + 1), np.expand_dims(zero_point, axis + 1)
    return values, scale, zero_point


def _floats(graph: ir.Graph, stored: ir.Value) -> ir.Value:
    """Return an initializer as float32, through a Cast that its readers share."""
    casts = (node.outputs[0] for node in stored.consumers() if node.op_type == "Cast")
    return next(casts, None) or _first(graph, "Cast", [stored], to=ir.DataType.FLOAT)


def _first(graph: ir.Graph, op_type: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
    """Return the output of a new node that stands before all others but those that it reads.

    The node gets no name and its output a short one: in small networks names outweigh what scales save.
    """
    node = ir.node(op_type, inputs, attributes, name="")
    made = [value.producer() for value in inputs]
    latest = max(filter(None, made), key=graph.index, default=None)
    if latest is None:
        put_first(graph, node)
    else:
        graph.insert_after(latest, node)
    return node.outputs[0]


def widen_weight(
    graph: ir.Graph, weight: ir.Value, stored: ir.TensorProtocol, scale: np.float32 | None = None
) -> None:
    """Store `weight` as `stored` (float16, say) and let its readers read it as float32, times `scale`."""
    name = weight.name or ""
    value = initializer(graph, f"{name}.{str(stored.dtype).lower()}", stored.numpy())
    nodes = [ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name=f"{name}.widen")]
    if scale is not None:
        factor = initializer(graph, f"{name}.scale", np.asarray(scale))
        nodes.append(ir.node("Mul", [nodes[0].outputs[0], factor], name=f"{name}.rescale"))
    output = nodes[-1].outputs[0]
    output.name, output.shape = f"{name}.widened", weight.shape
    output.type = ir.TensorType(ir.DataType.FLOAT)
    put_first(graph, *nodes)
    weight.replace_all_uses_with(output)
    del graph.initializers[name]


def dequantize_bias(graph: ir.Graph, node: ir.Node, values: np.ndarray, scale: np.ndarray) -> None:
    """Let input 2 of a Conv or Gemm come from int32 `values` [N] times float32 `scale` [N]."""
    before = node.inputs[2]
    name = (before.name if before is not None else None) or f"{node.name}.bias"
    inputs = [
        initializer(graph, f"{name}.quantized", values),
        initializer(graph, f"{name}.scale", scale),
        initializer(graph, f"{name}.zero_point", np.zeros(scale.shape, np.int32)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{name}.dequantize")
    dequantize.outputs[0].name = f"{name}.float"
    put_first(graph, dequantize)
    node.replace_input_with(2, dequantize.outputs[0])
    if before is not None and not before.uses() and before.is_initializer():
        del graph.initializers[before.name or ""]


def quantize_activation(
    graph: ir.Graph,
    value: ir.Value,
    scale: float,
    zero_point: np.generic,
    readers: Iterable[tuple[ir.Node, int]],
    *,
    final: bool = False,
) -> None:
    """Put a QuantizeLinear and DequantizeLinear pair between `value` and `readers` (node, input index).

    The type of `zero_point` is the type of the integers. With `final`, the graph puts out what is
    dequantized, under the name that `value` had.
    """
    name = value.name or ""
    scale_value = initializer(graph, f"{name}.scale", np.asarray(scale, np.float32))
    zero_value = initializer(graph, f"{name}.zero_point", np.asarray(zero_point))
    stored = ir.TensorType(ir.DataType.from_numpy(zero_point.dtype))
    integers = ir.Value(name=f"{name}.quantized", shape=value.shape, type=stored)
    output = ir.Value(name=f"{name}.float", shape=value.shape, type=value.type)
    inputs = [scale_value, zero_value]
    pair = [
        ir.node("QuantizeLinear", [value, *inputs], outputs=[integers], name=f"{name}.quantize"),
        ir.node("DequantizeLinear", [integers, *inputs], outputs=[output], name=f"{name}.dequantize"),
    ]
    producer = value.producer()
    if producer is None:
        put_first(graph, *pair)
    else:
        graph.insert_after(producer, pair)
    for node, index in readers:
        node.replace_input_with(index, output)
    if final:
        value.name, output.name = f"{name}.float", name
        graph.outputs[graph.outputs.index(value)] = output


def matmul_nbits(graph: ir.Graph, node: ir.Node, weight: ir.Value, quantized: Quantized) -> None:
    """Let ONNX Runtime's MatMulNBits do a ``MatMul(x, weight)``, ``MatMul(x, Transpose(weight))`` or Gemm.

    Weights are stored as uint8 [N, groups, bytes of a group], a group's first value in the lowest
    bits; scales as [N, groups]; zero points packed alike, left out if all are the middle of the
    range. `quantized` is unsigned, grouped along the K axis of [K, N] or [N, K]. Level 4 of
    accuracy lets the kernel quantize activations to int8: three to seven times faster on CPUs.

    Source: ONNX Runtime's ContribOperators.md, com.microsoft.MatMulNBits.
    """
    values, scale, zero_point, size = _rows(quantized)
    name = weight.name or ""
    inputs: list[ir.Value | None] = [
        node.inputs[0],
        initializer(graph, f"{name}.quantized", _blocks(values, size, quantized.bits)),
        scales(graph, name, scale),
    ]
    if not quantized.symmetric:
        inputs.append(initializer(graph, f"{name}.zero_point", _pack_bits(zero_point, quantized.bits)))
    if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
        inputs += [None] * (5 - len(inputs)) + [node.inputs[2]]
    attributes = {
        "K": values.shape[1],
        "N": values.shape[0],
        "bits": quantized.bits,
        "block_size": size,
        "accuracy_level": 4,
    }
    _replace(graph, node, "MatMulNBits", inputs, attributes)


def gather_quantized(
    graph: ir.Graph, node: ir.Node, weight: ir.Value, quantized: Quantized, *, multiplied: bool = False
) -> None:
    """Let GatherBlockQuantized read the rows of an embedding [rows, K], grouped along K, unsigned.

    With `multiplied`, a MatMulNBits reads the table too: both read the one stored in its layout,
    as long as whole blocks fill the rows.

    Source: ONNX Runtime's ContribOperators.md, com.microsoft.GatherBlockQuantized.
    """
    values, scale, zero_point, size = _rows(quantized)
    name = weight.name or ""
    table = _pack_bits(values, quantized.bits)
    if multiplied and values.shape[1] % size == 0:
        blocks = initializer(graph, f"{name}.quantized", _blocks(values, size, quantized.bits))
        rows = initializer(graph, f"{name}.rows", np.array(table.shape, np.int64))
        turned = ir.node("Reshape", [blocks, rows], name=f"{node.name}.table")
        graph.insert_before(node, turned)  # the runtime computes it as the model is loaded
        stored = turned.outputs[0]
    else:
        stored = initializer(graph, f"{name}.quantized", table)
    inputs: list[ir.Value | None] = [
        stored,
        node.inputs[1],
        scales(graph, name, scale),
    ]
    if not quantized.symmetric:
        inputs.append(initializer(graph, f"{name}.zero_point", _pack_bits(zero_point, quantized.bits)))
    attributes = {"bits": quantized.bits, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
    _replace(graph, node, "GatherBlockQuantized", inputs, attributes)


def gather_dequantize(graph: ir.Graph, node: ir.Node, weight: ir.Value, quantized: Quantized) -> None:
    """Gather integer rows and their scales apart, and multiply: standard operators only.

    `quantized` is symmetric, with one scale a row. A DequantizeLinear before the Gather would
    expand the whole table at every run.
    """
    name = weight.name or ""
    table = initializer(graph, f"{name}.quantized", packed(quantized.values.numpy(), quantized.bits))
    row_scales = scales(graph, name, quantized.scale.numpy()[:, None])
    rows = ir.node("Gather", [table, node.inputs[1]], name=f"{node.name}.rows")
    floats = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{node.name}.floats")
    scale = ir.node("Gather", [row_scales, node.inputs[1]], name=f"{node.name}.scales")
    for new in (rows, floats, scale):
        graph.insert_before(node, new)
    _replace(graph, node, "Mul", [floats.outputs[0], scale.outputs[0]], {}, domain="")


def _rows(quantized: Quantized) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return values [N, K], scales and zero points [N, groups], and the group size."""
    granularity = quantized.granularity
    if not isinstance(granularity, PerGroup):
        raise TypeError(f"blocked kernels take groups, not {granularity}")
    arrays = (quantized.values.numpy(), quantized.scale.numpy(), quantized.zero_point.numpy())
    values, scale, zero_point = (each.T if granularity.axis == 0 else each for each in arrays)
    return values, scale, zero_point, granularity.size


def _replace(
    graph: ir.Graph,
    old: ir.Node,
    op_type: str,
    inputs: list[ir.Value | None],
    attributes: dict[str, int],
    domain: str = MICROSOFT,
) -> None:
    """Put a node with the same name and the same output in the place of `old`."""
    output = old.outputs[0]
    name = old.name
    new = ir.node(op_type, inputs, attributes, domain=domain, name=name)
    new.outputs[0].type, new.outputs[0].shape = output.type, output.shape
    graph.insert_before(old, new)
    output_name = output.name
    output.replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    graph.remove(old, safe=True)
    new.outputs[0].name = output_name
    if domain:
        graph.opset_imports.setdefault(domain, 1)


def _blocks(values: np.ndarray, size: int, bits: int) -> np.ndarray:
    """Return values [N, K] as MatMulNBits stores them: uint8 [N, groups, size * bits / 8]."""
    short = -values.shape[1] % size
    filled = np.pad(values, ((0, 0), (0, short)))
    return _pack_bits(filled.reshape(len(values), -1, size), bits)


def _pack_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Pack the last axis into bytes, the first value in the lowest bits; a short last byte ends in zeros."""
    each = 8 // bits
    short = -values.shape[-1] % each
    values = np.pad(values.astype(np.uint8), [(0, 0)] * (values.ndim - 1) + [(0, short)])
    shifted = values.reshape(*values.shape[:-1], -1, each) << (np.arange(each, dtype=np.uint8) * bits)
    result: np.ndarray = np.bitwise_or.reduce(shifted, axis=-1)
    return result


def put_first(graph: ir.Graph, *nodes: ir.Node) -> None:
    """Insert nodes before all others."""
    if len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)
