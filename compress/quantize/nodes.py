"""ONNX nodes for quantized tensors: Q/DQ pairs, DequantizeLinear, MatMulNBits, GatherBlockQuantized."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx_ir as ir

from compress.graph import edit
from compress.graph.edit import add_initializer
from compress.graph.facts.record import MICROSOFT
from compress.numerics.granularity import PerAxis, PerGroup

if TYPE_CHECKING:
    from compress.numerics.affine import Quantized
    from compress.numerics.formats import IntegerFormat


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Return integers in the numpy type that ONNX stores `bits` bits in (4-bit types pack on saving)."""
    if bits > 4:
        return values
    return values.astype(ml_dtypes.int4 if values.dtype.kind == "i" else ml_dtypes.uint4)


def scales(
    graph: ir.Graph, name: str, content: np.ndarray, dtype: ir.DataType = ir.DataType.FLOAT
) -> ir.Value:
    """Add a weight's scales and return them as `dtype`; the runtime casts them as it loads the model."""
    stored = add_initializer(graph, f"{name}.scale", content)
    return stored if stored.dtype == dtype else _floats(stored, dtype)


def dequantize_weight(weight: ir.Value, quantized: Quantized) -> ir.Value:
    """Store `weight` as integers and return the output of the DequantizeLinear that reads them.

    Every reader of the weight reads the DequantizeLinear instead; the float initializer is removed.
    """
    granularity = quantized.granularity
    attributes: dict[str, int] = {}
    if isinstance(granularity, PerAxis | PerGroup):
        attributes["axis"] = granularity.axis
    if isinstance(granularity, PerGroup):
        attributes["block_size"] = granularity.size
    graph, name = edit.graph_of(weight), weight.name or ""
    if weight.dtype == ir.DataType.FLOAT16:  # the runtime fuses a layer that reads no Cast
        quantized = quantized.half_scales()
    inputs = [
        add_initializer(graph, f"{name}.quantized", packed(quantized.values.numpy(), quantized.bits)),
        add_initializer(graph, f"{name}.scale", quantized.scale.numpy()),
        # The runtime fuses a Gemm only where zero points are written out, zeros included.
        add_initializer(graph, f"{name}.zero_point", packed(quantized.zero_point.numpy(), quantized.bits)),
    ]
    node = ir.node("DequantizeLinear", inputs, attributes, name=f"{name}.dequantize")
    edit.insert_first(graph, node)
    floats = node.outputs[0]
    if inputs[1].dtype != weight.dtype:
        floats = _as_type(floats, weight.dtype)
    floats.name = f"{name}.float"
    edit.replace_value(weight, floats)
    return floats


def expand_weight(weight: ir.Value, quantized: Quantized) -> None:
    """Store `weight` as integers, and restore the floats by arithmetic that runtimes fold at load time.

    The file is small, and the model runs as fast as in float and moves as many bytes. A DequantizeLinear
    instead would be computed at every run.
    """
    graph, name = edit.graph_of(weight), weight.name or ""
    values, scale, zero_point = _broadcasting(quantized)
    steps = _floats(add_initializer(graph, f"{name}.quantized", packed(values, quantized.bits)))
    if zero_point.any():
        middle = add_initializer(graph, f"{name}.zero_point", packed(zero_point, quantized.bits))
        steps = _first("Sub", [steps, _floats(middle)])
    output = _first("Mul", [steps, scales(graph, name, scale)])
    shape = quantized.values.shape
    if values.shape != tuple(shape):
        whole = add_initializer(graph, f"{name}.shape", np.array(shape, np.int64))
        output = _first("Reshape", [output, whole])
    output = _as_type(output, weight.dtype)
    output.name = f"{name}.expanded"
    edit.replace_value(weight, output)


def _broadcasting(quantized: Quantized) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values, scales and zero points that broadcast against each other; groups get their own axis."""
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


def _floats(stored: ir.Value, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    """Return an initializer as floats, through a Cast that its readers share."""
    for node in stored.consumers():
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == dtype:
            return node.outputs[0]
    return _first("Cast", [stored], to=dtype)


def _as_type(floats: ir.Value, dtype: ir.DataType | None) -> ir.Value:
    """Return float32 numbers as what the readers of a weight of `dtype` compute in."""
    return floats if dtype in (None, ir.DataType.FLOAT) else _first("Cast", [floats], to=dtype)


def _first(op_type: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
    """Return the output of a new node that is inserted as early as its inputs allow.

    The node gets no name and its output a short one, because names take many bytes of a small network.
    """
    node = ir.node(op_type, inputs, attributes, name="")
    graph = edit.graph_of(inputs[0])
    made = [value for value in inputs if value.producer() is not None]
    latest = max(made, key=lambda value: graph.index(value.producer()), default=inputs[0])
    edit.insert_after(latest, node)
    return node.outputs[0]


def widen_weight(weight: ir.Value, stored: ir.TensorProtocol, scale: np.float32 | None = None) -> None:
    """Store `weight` as `stored` (float16, say); its readers read its own type, multiplied by `scale`."""
    graph, name = edit.graph_of(weight), weight.name or ""
    value = add_initializer(graph, f"{name}.{str(stored.dtype).lower()}", stored.numpy())
    dtype = weight.dtype or ir.DataType.FLOAT
    nodes = [ir.node("Cast", [value], {"to": dtype}, name=f"{name}.widen")]
    if scale is not None:
        factor = add_initializer(graph, f"{name}.scale", np.asarray(scale).astype(dtype.numpy()))
        nodes.append(ir.node("Mul", [nodes[0].outputs[0], factor], name=f"{name}.rescale"))
    nodes[-1].outputs[0].name = f"{name}.widened"
    edit.insert_first(graph, *nodes)
    edit.replace_value(weight, nodes[-1].outputs[0])


def dequantize_bias(node: ir.Node, values: np.ndarray, scale: np.ndarray) -> None:
    """Store the bias of a Conv or Gemm, input 2, as int32 `values` [N] with float32 `scale` [N]."""
    graph, before = edit.graph_of(node), node.inputs[2]
    name = (before.name if before is not None else None) or f"{node.name}.bias"
    inputs = [
        add_initializer(graph, f"{name}.quantized", values),
        add_initializer(graph, f"{name}.scale", scale),
        add_initializer(graph, f"{name}.zero_point", np.zeros(scale.shape, np.int32)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{name}.dequantize")
    dequantize.outputs[0].name = f"{name}.float"
    edit.insert_first(graph, dequantize)
    edit.set_input(node, 2, dequantize.outputs[0])


def quantize_activation(
    value: ir.Value,
    scale: float,
    zero_point: np.generic,
    readers: Iterable[tuple[ir.Node, int]],
    *,
    final: bool = False,
) -> None:
    """Put a QuantizeLinear and DequantizeLinear pair between `value` and `readers` (node, input index).

    The type of `zero_point` is the type of the integers. With `final`, the dequantized value replaces
    `value` as output of the graph, under the same name.
    """
    graph, name = edit.graph_of(value), value.name or ""
    scale_value = add_initializer(graph, f"{name}.scale", np.asarray(scale, np.float32))
    zero_value = add_initializer(graph, f"{name}.zero_point", np.asarray(zero_point))
    stored = ir.TensorType(ir.DataType.from_numpy(zero_point.dtype))
    integers = ir.Value(name=f"{name}.quantized", shape=value.shape, type=stored)
    output = ir.Value(name=f"{name}.float", shape=value.shape, type=value.type)
    inputs = [scale_value, zero_value]
    pair = [
        ir.node("QuantizeLinear", [value, *inputs], outputs=[integers], name=f"{name}.quantize"),
        ir.node("DequantizeLinear", [integers, *inputs], outputs=[output], name=f"{name}.dequantize"),
    ]
    edit.insert_after(value, *pair)
    for node, index in readers:
        edit.set_input(node, index, output)
    if final:
        edit.put_out(value, output)


def dequantize_number(node: ir.Node, index: int, integers: IntegerFormat) -> None:
    """Store a node's constant input, one number, as the code that is farthest from its zero point."""
    value = node.inputs[index]
    assert value is not None and value.const_value is not None
    content, kind = value.const_value.numpy(), f"{'' if integers.signed else 'u'}int{integers.bits}"
    number, (lowest, highest) = float(content.reshape(-1)[0]), integers.limits
    zero = integers.middle if integers.signed else highest if number < 0 else lowest
    code = highest if number > 0 else -highest if integers.signed else lowest
    scale = number / (code - zero) if number else 1.0
    graph, name = edit.graph_of(node), value.name or ""
    inputs = [
        add_initializer(graph, f"{name}.quantized", np.full(content.shape, code if number else zero, kind)),
        add_initializer(graph, f"{name}.scale", np.asarray(scale, np.float32)),
        add_initializer(graph, f"{name}.zero_point", np.dtype(kind).type(zero)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, name=f"{name}.dequantize")
    edit.insert_first(graph, dequantize)
    edit.set_input(node, index, dequantize.outputs[0])


def rescale(node: ir.Node) -> None:
    """Put a DequantizeLinear in the place of a Mul of codes by a number: its scale is multiplied instead."""
    before, factor = node.inputs[0], node.inputs[1]
    dequantize = before.producer() if before is not None else None
    assert dequantize is not None and factor is not None and factor.const_value is not None
    codes, step, zero_point = dequantize.inputs
    assert step is not None and step.const_value is not None
    scale = step.const_value.numpy() * factor.const_value.numpy().reshape(())
    value = add_initializer(edit.graph_of(node), f"{node.name}.scale", scale.astype(np.float32))
    edit.replace_node(node, ir.node("DequantizeLinear", [codes, value, zero_point], name=node.name))


def matmul_nbits(node: ir.Node, weight: ir.Value, quantized: Quantized) -> None:
    """Replace ``MatMul(x, weight)``, ``MatMul(x, Transpose(weight))`` or Gemm by ONNX Runtime's MatMulNBits.

    Weights are stored as uint8 [N, groups, bytes of a group], with a group's first value in the lowest
    bits, and scales as [N, groups]. Zero points are packed in the same way, and left out if all are the
    middle of the range. `quantized` is unsigned, grouped along the K axis of [K, N] or [N, K]. Accuracy
    level 4 lets the kernel quantize activations to int8, which is three to seven times faster on CPUs.

    Source: ONNX Runtime's ContribOperators.md, com.microsoft.MatMulNBits.
    """
    values, scale, zero_point, size = _rows(quantized)
    graph, name = edit.graph_of(weight), weight.name or ""
    blocks = add_initializer(graph, f"{name}.quantized", _blocks(values, size, quantized.bits))
    steps = scales(graph, name, scale, weight.dtype or ir.DataType.FLOAT)
    if steps.const_value is None:
        # Without the runtime's optimizations the Cast stays. The kernel then takes scales only beside
        # blocks that come from a node too; it returns zeros beside blocks that it has packed at load.
        blocks = _reshaped(blocks)
    inputs: list[ir.Value | None] = [node.inputs[0], blocks, steps]
    if not quantized.symmetric:
        inputs.append(add_initializer(graph, f"{name}.zero_point", _pack_bits(zero_point, quantized.bits)))
    if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
        inputs += [None] * (5 - len(inputs)) + [node.inputs[2]]
    attributes = {
        "K": values.shape[1],
        "N": values.shape[0],
        "bits": quantized.bits,
        "block_size": size,
        "accuracy_level": 4,
    }
    edit.replace_node(node, ir.node("MatMulNBits", inputs, attributes, domain=MICROSOFT, name=node.name))


def _reshaped(stored: ir.Value, shape: tuple[int, ...] = ()) -> ir.Value:
    """Return an initializer through a Reshape, to its own shape if no other is given.

    The runtime computes it as the model is loaded.
    """
    assert stored.const_value is not None  # it is an initializer
    sizes = np.array(shape or stored.const_value.shape.numpy(), np.int64)
    name = f"shape.{'x'.join(map(str, sizes))}"
    return _first("Reshape", [stored, add_initializer(edit.graph_of(stored), name, sizes)])


def gather_quantized(
    node: ir.Node, weight: ir.Value, quantized: Quantized, *, multiplied: bool = False
) -> None:
    """Replace the Gather of an embedding [rows, K] by GatherBlockQuantized; unsigned, grouped along K.

    With `multiplied`, a MatMulNBits reads the table too. Both nodes then share one table in the layout of
    MatMulNBits, if whole blocks fill the rows.

    Source: ONNX Runtime's ContribOperators.md, com.microsoft.GatherBlockQuantized.
    """
    values, scale, zero_point, size = _rows(quantized)
    graph, name = edit.graph_of(weight), weight.name or ""
    table = _pack_bits(values, quantized.bits)
    if multiplied and values.shape[1] % size == 0:
        blocks = add_initializer(graph, f"{name}.quantized", _blocks(values, size, quantized.bits))
        stored = _reshaped(blocks, table.shape)
    else:
        stored = add_initializer(graph, f"{name}.quantized", table)
    inputs: list[ir.Value | None] = [
        stored,
        node.inputs[1],
        scales(graph, name, scale, weight.dtype or ir.DataType.FLOAT),
    ]
    if not quantized.symmetric:
        inputs.append(add_initializer(graph, f"{name}.zero_point", _pack_bits(zero_point, quantized.bits)))
    attributes = {"bits": quantized.bits, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
    gather = ir.node("GatherBlockQuantized", inputs, attributes, domain=MICROSOFT, name=node.name)
    edit.replace_node(node, gather)


def gather_dequantize(node: ir.Node, weight: ir.Value, quantized: Quantized) -> None:
    """Gather integer rows and their scales separately and multiply them, with standard operators only.

    `quantized` is symmetric, with one scale for each row. A DequantizeLinear before the Gather would
    dequantize the whole table at every run.
    """
    graph, name = edit.graph_of(weight), weight.name or ""
    table = add_initializer(graph, f"{name}.quantized", packed(quantized.values.numpy(), quantized.bits))
    row_scales = scales(graph, name, quantized.scale.numpy()[:, None])
    rows = ir.node("Gather", [table, node.inputs[1]], name=f"{node.name}.rows")
    floats = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{node.name}.floats")
    scale = ir.node("Gather", [row_scales, node.inputs[1]], name=f"{node.name}.scales")
    product = ir.node("Mul", [floats.outputs[0], scale.outputs[0]], name=node.name)
    new = [rows, floats, scale, product]
    if weight.dtype not in (None, ir.DataType.FLOAT):
        new.append(ir.node("Cast", product.outputs, {"to": weight.dtype}, name=f"{node.name}.cast"))
    edit.replace_node(node, *new)


def _rows(quantized: Quantized) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return values [N, K], scales and zero points [N, groups], and the group size."""
    granularity = quantized.granularity
    if not isinstance(granularity, PerGroup):
        raise TypeError(f"blocked kernels take groups, not {granularity}")
    arrays = (quantized.values.numpy(), quantized.scale.numpy(), quantized.zero_point.numpy())
    values, scale, zero_point = (each.T if granularity.axis == 0 else each for each in arrays)
    return values, scale, zero_point, granularity.size


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
