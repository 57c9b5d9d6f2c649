"""Factors and shifts of channels beside a layer, folded into its weight and bias.

``Conv(x) * factor + shift`` is a convolution too. So BatchNormalization, Mul, Div, Add and Sub with constants
behind a layer go into it, those before it if it pads nothing, and a Gemm's alpha and beta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from compress.graph import edit, facts
from compress.graph.layers import FLOATS, array
from compress.graph.linear import holds, store
from compress.graph.walks import is_constant, only_reader

Array: TypeAlias = npt.NDArray[Any]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Carrier:
    """A layer that factors and shifts can be folded into.

    Attributes:
        node: Conv, ConvTranspose, Gemm, MatMul or BatchNormalization.
        weight: its weight, or the scale of a BatchNormalization.
        channels: how many channels it puts out.
        rank: number of axes of its output; None where it is not known.
    """

    node: ir.Node
    weight: ir.Value
    channels: int
    rank: int | None

    @property
    def own(self) -> bool:
        """Whether no other node reads its weight, so that it can change."""
        return len(self.weight.uses()) == 1 and not self.weight.is_graph_output()

    def spread(self, content: Array) -> Array | None:
        """Return a constant as [channels]; None if it does not broadcast along the channels alone."""
        last = facts.of(self.node).channel_axis == -1
        rank = self.rank or int(last)
        if content.ndim > max(rank, 1):
            return None
        if content.size == 1:
            return np.broadcast_to(content.reshape(-1), self.channels)
        place = content.ndim - (1 if last else rank - 1)
        if rank == 0 or content.size != self.channels:
            return None
        return content.reshape(-1) if place >= 0 and content.shape[place] == self.channels else None

    def scaled(self, factor: Array) -> Array:
        """Return the weight with each output channel multiplied by its factor."""
        weight = array(self.weight).astype(np.float64)
        match self.node.op_type:
            case "Conv":
                return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
            case "ConvTranspose":  # [inputs, outputs of a group, kernel...]
                groups = self.node.attributes.get_int("group", 1)
                split = weight.reshape(groups, -1, *weight.shape[1:])
                along = factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
                return (split * along).reshape(weight.shape)
            case "Gemm" if bool(self.node.attributes.get_int("transB", 0)):
                return weight * factor[:, None]
            case _:
                return weight * factor

    def takes(self, factor: Array, shift: Array) -> bool:
        """Tell whether a factor and a shift can be folded into the layer, and its type holds the numbers."""
        bias = _bias(self.node)
        if bias is not None and array(bias).shape != (self.channels,):
            return False
        if shift.any() and facts.of(self.node).bias is None:
            return False
        return bool((factor == 1).all()) or (self.own and holds(self.weight, self.scaled(factor)))

    def apply(self, factor: Array, shift: Array) -> None:
        """Multiply the layer's output by a factor and add a shift, [channels] each."""
        before = _bias(self.node)
        if not (factor == 1).all():
            store(self.weight, self.scaled(factor))
        place = facts.of(self.node).bias
        if place is None or (before is None and not shift.any()):
            return
        old = 0.0 if before is None else array(before).astype(np.float64)
        after = np.broadcast_to(old, self.channels) * factor + shift
        _set_own(self.node, place, after.astype(_type(self.weight).numpy()))


def fold_affine(model: ir.Model, shapes: Shapes) -> None:
    """Fold what scales and shifts channels into the layers beside it, in the whole model.

    Args:
        model: the model; changed in place.
        shapes: shapes of values by name, as far as they are known.
    """
    for graph in model.graphs():
        for node in list(graph):
            if node.graph is None:
                continue  # folded into the one before
            _fold_coefficients(node)
            while (node_behind := _absorb_behind(node, shapes)) is not None:
                node = node_behind
            while _absorb_before(node, shapes):
                pass


def _carrier(node: ir.Node, shapes: Shapes = MappingProxyType({})) -> Carrier | None:
    """Return a node as a carrier; None if it is none, or its weight is not constant."""
    if node.domain or node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"):
        return None
    weight, bias = node.inputs[1], _bias(node)
    if weight is None or not is_constant(weight) or (bias is not None and not is_constant(bias)):
        return None
    if weight.dtype not in FLOATS:  # a third of an integer is none
        return None
    content, known = array(weight), shapes.get(node.outputs[0].name or "")
    rank = None if known is None else len(known)
    match node.op_type:
        case "Conv":
            return Carrier(node, weight, content.shape[0], content.ndim)
        case "ConvTranspose":
            return Carrier(node, weight, content.shape[1] * node.attributes.get_int("group", 1), content.ndim)
        case "Gemm":
            return Carrier(node, weight, content.shape[0 if node.attributes.get_int("transB", 0) else 1], 2)
        case "MatMul" if content.ndim == 2:
            return Carrier(node, weight, content.shape[1], rank)
        case "BatchNormalization" if not node.attributes.get_int("training_mode", 0):
            return Carrier(node, weight, content.size, rank)
    return None


def _absorb_behind(node: ir.Node, shapes: Shapes) -> ir.Node | None:
    """Fold the only reader of a layer into it; return the node that takes the place of both, if one can."""
    carrier, reader = _carrier(node, shapes), only_reader(node.outputs[0])
    if carrier is None or reader is None or reader.graph is not node.graph:
        return None
    effect = _effect(reader, node.outputs[0], carrier)
    if effect is None or not carrier.takes(*effect):
        return None
    carrier.apply(*effect)
    merged = ir.node(node.op_type, node.inputs, node.attributes, name=node.name)
    edit.replace_node(reader, merged)
    return merged


def _effect(reader: ir.Node, value: ir.Value, carrier: Carrier) -> tuple[Array, Array] | None:
    """Return by which factor and shift [channels] a node changes a layer's output; None if it does more."""
    if reader.op_type == "BatchNormalization" and reader.inputs[0] is value:
        fits = carrier.rank == 2 or facts.of(carrier.node).channel_axis == 1
        return normalization(reader) if fits else None
    found = _arithmetic(reader, value)
    content = None if found is None else carrier.spread(found[1])
    return None if found is None or content is None else _as_effect(found[0], content)


def _arithmetic(node: ir.Node, value: ir.Value) -> tuple[str, Array] | None:
    """Return what a node does to `value` with a finite constant, and that; None if it does something else."""
    if node.domain or node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None
    first = node.inputs[0] is value
    other = node.inputs[1 if first else 0]
    if other is None or not is_constant(other) or other.dtype not in FLOATS:
        return None
    content = array(other).astype(np.float64)
    if not np.isfinite(content).all() or (node.op_type == "Div" and not (first and content.all())):
        return None
    return node.op_type if first or node.op_type != "Sub" else "from", content


def _as_effect(does: str, content: Array) -> tuple[Array, Array]:
    """Return factor and shift of arithmetic with a constant [channels]."""
    one, none = np.ones(content.shape), np.zeros(content.shape)
    match does:
        case "Mul":
            return content, none
        case "Div":
            return 1 / content, none
        case "Add":
            return one, content
        case "Sub":
            return one, -content
        case _:
            return -one, content


def normalization(node: ir.Node) -> tuple[Array, Array] | None:
    """Return factor and shift of a BatchNormalization, once trained; None if they are not constant."""
    given = [value for value in node.inputs[1:5] if value is not None and is_constant(value)]
    if len(given) < 4 or bool(node.attributes.get_int("training_mode", 0)):
        return None
    scale, bias, mean, variance = (array(value).astype(np.float64) for value in given)
    factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return (factor, bias - mean * factor) if np.isfinite(factor).all() else None


def _absorb_before(node: ir.Node, shapes: Shapes) -> bool:
    """Fold what scales and shifts the channels that a layer alone reads into it; tell whether it could.

    A layer that pads takes a factor, and that of a node before a shift too: ``a x + b = a (x + b / a)``.
    """
    value, carrier = node.inputs[0] if node.inputs else None, _carrier(node)
    before = value.producer() if value is not None else None
    if value is None or before is None or carrier is None or not carrier.own:
        return False
    source, effect = _effect_before(before, carrier, shapes)
    if source is None or only_reader(value) is not node or before.graph is not node.graph:
        return False
    if effect[1].any() and _pads(node):
        return bool(effect[0].all()) and _absorb_past(before, source, carrier, shapes)
    return _take_in(carrier, *effect) and _read_instead(node, source)


def _read_instead(node: ir.Node, source: ir.Value) -> bool:
    edit.set_input(node, 0, source)
    return True


def _absorb_past(add: ir.Node, value: ir.Value, carrier: Carrier, shapes: Shapes) -> bool:
    """Fold the factor of a node before an Add into the padding layer behind it; tell whether it could."""
    scaler, place = value.producer(), 1 if add.inputs[0] is value else 0
    shift = add.inputs[place]
    if add.op_type != "Add" or scaler is None or only_reader(value) is not add or shift is None:
        return False
    source, (factor, rest) = _effect_before(scaler, carrier, shapes)
    content = array(shift).astype(np.float64)
    if source is None or rest.any() or not factor.all() or (factor != factor[0]).any():
        return False
    if not _take_in(carrier, factor, rest):
        return False
    _set_own(add, place, (content / factor[0]).astype(_type(shift).numpy()))
    edit.set_input(add, 1 - place, source)
    return True


def _effect_before(
    node: ir.Node, carrier: Carrier, shapes: Shapes
) -> tuple[ir.Value | None, tuple[Array, Array]]:
    """Return what a node before a layer scales and shifts, and by what [input channels]; None if nothing."""
    nothing = None, (np.ones(1), np.zeros(1))
    channels, width = _read_channels(carrier), array(carrier.weight).ndim
    if node.op_type == "BatchNormalization" and not node.domain:
        effect = normalization(node)
        return nothing if effect is None else (node.inputs[0], effect)
    data = next((each for each in node.inputs if each is not None and not is_constant(each)), None)
    found = None if data is None else _arithmetic(node, data)
    if data is None or found is None:
        return nothing
    content, before, after = found[1], *(shapes.get(each.name or "") for each in (data, node.outputs[0]))
    if content.size == 1 and (content.ndim < 2 or (before is not None and before == after)):
        return data, _as_effect(found[0], np.broadcast_to(content.reshape(-1), channels))
    # A channel that the constant repeats, as that of a grey picture, is not there to be read.
    if before is None or before != after or content.size != channels:
        return nothing
    place = content.ndim - (width - 1 if carrier.node.op_type == "Conv" else 1)
    fits = place >= 0 and content.ndim <= width and content.shape[place] == channels
    return (data, _as_effect(found[0], content.reshape(-1))) if fits else nothing


def _read_channels(carrier: Carrier) -> int:
    """Return how many channels a layer reads."""
    node, shape = carrier.node, array(carrier.weight).shape
    if node.op_type == "Conv":
        return int(shape[1]) * node.attributes.get_int("group", 1)
    return int(shape[1 if node.attributes.get_int("transB", 0) else 0])


def _pads(node: ir.Node) -> bool:
    """Tell whether a convolution reads zeros around its input."""
    padded = any(node.attributes.get_ints("pads", []))
    return padded or node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _take_in(carrier: Carrier, factor: Array, shift: Array) -> bool:
    """Multiply what a layer reads by a factor and add a shift [input channels]; tell whether it could."""
    node, weight = carrier.node, array(carrier.weight).astype(np.float64)
    if node.op_type == "Conv":
        groups = node.attributes.get_int("group", 1)
        rows, others = len(weight) // groups, [1] * (weight.ndim - 2)
        factor, shift = (np.repeat(each.reshape(groups, -1), rows, 0) for each in (factor, shift))
        moved = (weight * shift.reshape(*shift.shape, *others)).reshape(len(weight), -1).sum(1)
        scaled = weight * factor.reshape(*factor.shape, *others)
    elif node.op_type == "Gemm" and not node.attributes.get_int("transA", 0):
        if node.attributes.get_int("transB", 0):
            moved, scaled = weight @ shift, weight * factor
        else:
            moved, scaled = shift @ weight, weight * factor[:, None]
    else:
        return False
    if not carrier.takes(np.ones(1), moved) or not holds(carrier.weight, scaled):
        return False
    carrier.apply(np.ones(carrier.channels), moved)
    store(carrier.weight, scaled)
    return True


def _fold_coefficients(node: ir.Node) -> None:
    """Fold alpha and beta of a Gemm into weight and bias; make a vector of a bias that is one number."""
    carrier = _carrier(node) if node.op_type == "Gemm" else None
    if carrier is None:
        return
    alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    if alpha != 1 and carrier.own:
        scaled = carrier.scaled(np.full(carrier.channels, alpha, np.float64))
        if holds(carrier.weight, scaled):
            store(carrier.weight, scaled)
            node.attributes.pop("alpha")
    bias = _bias(node)
    if bias is None:
        node.attributes.pop("beta", None)
        return
    content = carrier.spread(array(bias).astype(np.float64))
    if content is None and beta == 1:
        return
    if beta == 0:
        edit.set_input(node, 2, None)
    elif beta != 1 or array(bias).shape != (carrier.channels,):
        content = array(bias).astype(np.float64) if content is None else content
        _set_own(node, 2, (content * beta).astype(_type(bias).numpy()))
    node.attributes.pop("beta", None)


def _type(value: ir.Value) -> ir.DataType:
    return value.dtype or ir.DataType.FLOAT


def _bias(node: ir.Node) -> ir.Value | None:
    place = facts.of(node).bias
    return node.inputs[place] if place is not None and place < len(node.inputs) else None


def _set_own(node: ir.Node, place: int, content: Array) -> None:
    """Give a node's constant input new content; other readers of it keep the old one."""
    before = node.inputs[place] if place < len(node.inputs) else None
    if before is not None and len(before.uses()) == 1 and not before.is_graph_output():
        edit.set_initializer(before, content)
        return
    name = (before.name if before is not None else None) or f"{node.name}.bias"
    edit.set_input(node, place, edit.add_initializer(edit.graph_of(node), name, content))
