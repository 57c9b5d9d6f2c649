"""Rules of operators that give the shapes of one of ONNX's own, on other types or in another layout."""

from __future__ import annotations

import onnx_ir as ir

from compress.graph.shape_rules.call import Call, Outputs, Rule
from compress.graph.tensor_info import TensorInfo, standard

FLOAT = ir.DataType.FLOAT
WINDOW = ("auto_pad", "ceil_mode", "dilations", "group", "kernel_shape", "pads", "strides")
"""Attributes that decide the shape of what a convolution or a pool gives."""


def alike(
    op_type: str,
    *places: int,
    dtype: int | ir.DataType = 0,
    attributes: tuple[str, ...] = (),
    version: int = 20,
    last: bool | None = False,
) -> Rule:
    """Return the rule of an operator whose first output has the shape that ONNX's `op_type` gives.

    Args:
        op_type: ONNX's operator.
        places: inputs of the operator that ONNX's reads, in this order.
        dtype: type of the output, or the input that has it; float where that input is left out.
        attributes: those that decide the shape, of one name and meaning for both operators.
        version: opset of ONNX's operator.
        last: whether channels come last in the first input and the output; None if the attribute
            ``channels_last`` says it.
    """

    def rule(call: Call) -> Outputs:
        inputs = [info and info._replace(dtype=FLOAT) for info in map(call.get, places)]
        is_last = bool(call.int("channels_last")) if last is None else last
        if is_last:
            inputs[0] = channels_second(call[places[0]]._replace(dtype=FLOAT))
        found = standard(op_type, inputs, call.attributes(attributes), version)
        typed = None if isinstance(dtype, ir.DataType) else call.get(dtype)
        wanted = dtype if isinstance(dtype, ir.DataType) else typed.dtype if typed else FLOAT
        return [(channels_last(found) if is_last else found)._replace(dtype=wanted)]

    return rule


def channels_second(info: TensorInfo) -> TensorInfo:
    """Return a shape with its last axis second."""
    return info._replace(shape=(info.shape[0], info.shape[-1], *info.shape[1:-1]))


def channels_last(info: TensorInfo) -> TensorInfo:
    """Return a shape with its second axis last."""
    return info._replace(shape=(info.shape[0], *info.shape[2:], info.shape[1]))
