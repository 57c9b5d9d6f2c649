"""Activations that a file spells as arithmetic, put together again.

Exporters that know no HardSwish write ``x * clip(x + 3, 0, 6) / 6`` as four operators. Runtimes compute each
in a pass of its own over memory, where HardSwish and HardSigmoid join the convolution before them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import onnx_ir as ir

from compress.graph import edit
from compress.graph.layers import array
from compress.graph.opsets import opset
from compress.graph.walks import is_constant, only_reader

HARD_SWISH = 14
"""The operator set since which HardSwish exists."""
SWISH = (1 / 6, 0.5)
"""Slope and shift of the HardSigmoid in HardSwish."""
TOLERANCE = 1e-5
"""How far, relative to 1, a slope or an end written in float32 may be off."""


@dataclass(frozen=True, slots=True)
class _Affine:
    """``factor * value + shift``."""

    value: ir.Value
    factor: float = 1.0
    shift: float = 0.0

    def then(self, factor: float, shift: float) -> _Affine:
        """Return the same scaled and shifted once more."""
        return replace(self, factor=self.factor * factor, shift=self.shift * factor + shift)


def fuse_activations(model: ir.Model) -> None:
    """Put HardSigmoid and HardSwish in the place of the operators that compute them, in the main graph.

    Values keep the names of what the last of the operators put out. What is no longer read stays behind.
    """
    for node in list(model.graph):
        if node.op_type == "Clip" and not node.domain:
            _gate(node)
    for node in list(model.graph) if opset(model) >= HARD_SWISH else ():
        if node.op_type == "HardSigmoid" and not node.domain:
            _swish(node)


def _gate(clip: ir.Node) -> None:
    """Put a HardSigmoid in the place of a Clip that is scaled to between 0 and 1, with what scales it."""
    ends = [_number(value) for value in (*clip.inputs[1:3], None, None)][:2]
    if None in ends or clip.inputs[0] is None:
        return
    low, high = (float(end) for end in ends if end is not None)
    before = _scaled(clip.inputs[0])
    last, product, after = clip, None, _Affine(clip.outputs[0])
    while not (_near(after.factor * low + after.shift, 0) and _near(after.factor * high + after.shift, 1)):
        reader = only_reader(last.outputs[0])
        step = None if reader is None else _step(reader, last.outputs[0])
        if reader is not None and step is not None and not (product and step[1]):
            after = after.then(*step)
        elif reader is not None and product is None and not after.shift and _multiplies(reader, before.value):
            product = reader
        else:
            return
        last = reader
    alpha, beta = before.factor * after.factor, before.shift * after.factor + after.shift
    if alpha <= 0:
        return
    name = last.name or ""
    gate = ir.node("HardSigmoid", [before.value], {"alpha": alpha, "beta": beta}, name=name)
    if product is None:
        edit.replace_node(last, gate)
    else:
        gate.name = f"{name}.gate"
        gate.outputs[0].type, gate.outputs[0].shape = before.value.type, before.value.shape
        edit.replace_node(last, gate, ir.node("Mul", [before.value, gate.outputs[0]], name=name))


def _swish(gate: ir.Node) -> None:
    """Put a HardSwish in the place of a HardSigmoid of its slope and the product with its input."""
    source, product = gate.inputs[0], only_reader(gate.outputs[0])
    given = gate.attributes.get_float("alpha", 0.2), gate.attributes.get_float("beta", 0.5)
    if source is None or product is None or not _multiplies(product, source):
        return
    if all(map(_near, given, SWISH)):
        edit.replace_node(product, ir.node("HardSwish", [source], name=product.name))


def _scaled(value: ir.Value) -> _Affine:
    """Return what a value is, scaled and shifted by the numbers before it."""
    factor, shift = 1.0, 0.0
    while (node := value.producer()) is not None and only_reader(value) is not None:
        data = next((each for each in node.inputs if each is not None and not is_constant(each)), None)
        step = None if data is None else _step(node, data)
        if data is None or step is None:
            break
        factor, shift, value = factor * step[0], factor * step[1] + shift, data
    return _Affine(value, factor, shift)


def _step(node: ir.Node, data: ir.Value) -> tuple[float, float] | None:
    """Return by what a node scales and shifts `data`; None if it does something else."""
    if node.domain or node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first = node.inputs[0] is data
    number = _number(node.inputs[1 if first else 0])
    if number is None:
        return None
    match node.op_type:
        case "Add":
            return 1.0, number
        case "Mul":
            return number, 0.0
        case "Sub":
            return (1.0, -number) if first else (-1.0, number)
        case _:
            return (1 / number, 0.0) if first and number else None


def _multiplies(node: ir.Node, value: ir.Value) -> bool:
    """Tell whether a node is the product of `value` and something else."""
    return node.op_type == "Mul" and not node.domain and value in node.inputs


def _number(value: ir.Value | None) -> float | None:
    """Return the one float that a constant holds."""
    if value is None or not is_constant(value) or value.dtype != ir.DataType.FLOAT:
        return None
    content = array(value)
    return float(content.reshape(-1)[0]) if content.size == 1 and content.ndim <= 1 else None


def _near(found: float, wanted: float) -> bool:
    return math.isclose(found, wanted, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
