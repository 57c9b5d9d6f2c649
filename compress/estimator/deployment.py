"""A model as a toolchain would put it on a device: in the number types that the device has, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from compress import units
from compress.errors import DoesNotRunError
from compress.estimator.hardware import Number, Profile, parse_number
from compress.estimator.residency import peak
from compress.estimator.workload import LayerWork, Operand


@dataclass
class Deployment:
    """Converts a model's layers to what a device runs.

    - A product is computed in the type that `Profile.runs_in` names.
    - Activations, and weights that are stored as they are multiplied, take the width of that type.
    - Weights that are stored in fewer bits than they are multiplied in keep them if the device `decodes`
      that type. A toolchain decodes others once, as it loads the model.

    Nothing changes where ONNX Runtime runs the graph: what it converts stands in the graph.
    """

    profile: Profile
    runs_as: dict[str, str] = field(default_factory=dict)
    """What was converted, and the type it was converted to: ``{"float32": "bf16"}``."""

    def of(self, layers: Sequence[LayerWork]) -> list[LayerWork]:
        """Return the layers as they are deployed.

        Raises:
            DoesNotRunError: the device lacks a type, and no other stands in for it.
        """
        if self.profile.executes == "onnxruntime":
            return list(layers)
        return [self._layer(layer) for layer in layers]

    def _layer(self, layer: LayerWork) -> LayerWork:
        name = self.profile.runs_in(layer.number)
        if name is None:
            if layer.macs:
                raise DoesNotRunError(
                    f"does not run on {self.profile.id}: layer {layer.name!r} multiplies {layer.number}, and "
                    f"there is only {', '.join(self.profile.arithmetic)}; quantize it"
                )
            return layer
        number = parse_number(name)
        if layer.macs and number != layer.number:
            self.runs_as[str(layer.number)] = name
        weight = layer.weight
        if weight.encoded and weight.bits < self._coded_bits(weight, number) == number.bits:
            self.runs_as[f"{weight.bits}-bit weights"] = name
        return replace(
            layer,
            number=number,
            input=self._stored(layer.input, number),
            weight=self._stored(weight, number),
            output=self._stored(layer.output, number),
            streamed=tuple(self._stored(each, number) for each in layer.streamed),
        )

    def _coded_bits(self, weight: Operand, number: Number) -> int:
        """Return the bits in which a weight waits that stands for `number`."""
        kind = "int" if weight.is_integer else "float"
        decodes = [each.bits for each in map(parse_number, self.profile.decodes) if each.kind == kind]
        return min((bits for bits in (*decodes, number.bits) if bits >= weight.bits), default=weight.bits)

    def _stored(self, operand: Operand, number: Number) -> Operand:
        """Return a tensor as it is stored on the device, beside arithmetic in `number`."""
        if operand.encoded:
            bits = self._coded_bits(operand, number)
            return _widened(operand, bits, coded=bits < number.bits or number.kind == "int")
        stored = Number("int" if operand.is_integer else "float", operand.bits)
        name = self.profile.runs_in(stored)
        if name is None or (operand.is_integer and parse_number(name).kind == "float"):
            return operand  # indices, and floats that are not multiplied before they are quantized
        return _widened(operand, parse_number(name).bits)


def _widened(operand: Operand, bits: int, *, coded: bool = True) -> Operand:
    """Return a tensor with elements of `bits`; one that is no longer `coded` has no scales."""
    if coded and bits == operand.bits:
        return operand
    scales = max(operand.bytes - math.ceil(operand.elements * operand.bits / 8), 0.0) if coded else 0.0
    encoded = operand.encoded and coded
    return replace(operand, bits=bits, bytes=operand.elements * bits / 8 + scales, encoded=encoded)


def check_room(layers: Sequence[LayerWork], profile: Profile, outputs: frozenset[str]) -> None:
    """Check that weights fit the outermost memory, and results what is in front of one that is read only.

    Raises:
        DoesNotRunError: something does not fit.
    """
    outer = profile.memories[0]
    weights = math.fsum({o.name: o.bytes for layer in layers for o in layer.operands if o.is_weight}.values())
    if outer.capacity_bytes is not None and weights > outer.capacity_bytes.value:
        raise DoesNotRunError(
            f"does not run on {profile.id}: its weights take {units.si(weights, 'B')}, and {outer.name} "
            f"holds {units.si(outer.capacity_bytes.value, 'B')}"
        )
    if not outer.read_only:
        return
    inner = next(memory for memory in profile.memories[1:] if "activations" in memory.keeps)
    where, most = peak(layers, outputs)
    if inner.capacity_bytes is not None and most > inner.capacity_bytes.value:
        raise DoesNotRunError(
            f"does not run on {profile.id}: at layer {where!r} its results take {units.si(most, 'B')}, and "
            f"{inner.name} holds {units.si(inner.capacity_bytes.value, 'B')}"
        )
