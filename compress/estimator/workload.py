"""A graph as a list of layers: what each computes, and the stored bytes of its operands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import onnx_ir as ir

from compress.errors import about
from compress.estimator import sparsity
from compress.estimator.hardware import Number
from compress.estimator.mapping import Loops
from compress.estimator.operators import Contraction, View, contractions, ops_per_element
from compress.graph import facts
from compress.graph.edit import bodies
from compress.graph.node_shapes import called
from compress.graph.propagate import Propagation
from compress.graph.rounds import ONCE
from compress.graph.tensor_info import TensorInfo

_DECODERS = frozenset(("DequantizeLinear", "QuantizeLinear"))


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor as it is stored."""

    name: str
    elements: int
    bytes: float
    """Stored bytes, scales, zero points and codebooks included."""
    is_weight: bool = False
    zeros: float | None = None
    """Fraction of the elements that are zero; None if that is not known."""
    bits: int = 32
    """Width of one element's code."""
    is_integer: bool = False
    encoded: bool = False
    """Whether values are decoded from stored codes before use."""
    two_of_four: bool = False
    """Whether at least two of every four weights along the reduction are zero."""
    coded_bytes: float = 0.0
    """Bytes after entropy coding, in memories outside level `decoded_at`; 0 if not coded."""
    decoded_at: int = 0
    """Index of the outermost memory that holds it decoded."""

    def part(self, parts: int) -> Operand:
        """Return one of equal parts."""
        return replace(self, elements=-(-self.elements // parts), bytes=self.bytes / parts)


NOTHING = Operand("", 0, 0.0)
"""An operand that never leaves the units."""


@dataclass(frozen=True, slots=True)
class LayerWork:
    """One operator, with what was fused into it."""

    name: str
    op_type: str
    number: Number
    loops: Loops | None = None
    """The nest over `input`, `weight` and `output`; None where there is no contraction."""
    input: Operand = NOTHING
    weight: Operand = NOTHING
    output: Operand = NOTHING
    streamed: tuple[Operand, ...] = ()
    """Operands besides those of the nest; each is read or written once."""
    produces: str = ""
    """Name of the tensor that the layer writes."""
    ops: float = 0.0
    """Scalar operations of one step, besides the multiply-accumulates and the decoding of weights."""
    steps: int = 1
    """How often the whole layer runs, one run after the other."""
    parts: float = 1.0
    """In how many parts the batch goes through the network, one after the other."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all steps."""
        return self.loops.macs * self.steps if self.loops is not None else 0

    @property
    def at_once(self) -> Loops | None:
        """The nest of one part of the batch: fewer images, rows of a matrix or groups."""
        if self.loops is None or self.parts == 1:
            return self.loops
        loops = self.loops
        images, rows, groups = (round(x / self.parts, 6) for x in (loops.n, loops.out[0], loops.groups))
        if images.is_integer():
            return replace(loops, n=int(images))
        if rows.is_integer() and loops.out[1] == 1:
            return replace(loops, out=(int(rows), 1))
        return replace(loops, groups=int(groups)) if groups.is_integer() else loops

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Every operand that has bytes."""
        return tuple(o for o in (self.input, self.weight, self.output, *self.streamed) if o.bytes)

    @property
    def bytes(self) -> float:
        """Bytes of all operands, each once."""
        return math.fsum(operand.bytes for operand in self.operands)


@dataclass
class WorkloadReader:
    """Reads one graph at concrete shapes.

    Args:
        model: the model, local functions inlined.
        found: shape and type of every value, and how often bodies run.
        logical: whether Q/DQ and arithmetic on constants only say how values are stored; else every node
            runs.
        zeros: fraction of zeros by value name; those of a weight replace the count.
        weight_zeros: count zeros in weights.
    """

    model: ir.Model
    found: Propagation
    logical: bool = True
    zeros: Mapping[str, float] = field(default_factory=dict)
    weight_zeros: bool = False

    def layers(self) -> list[LayerWork]:
        """Return the layers in the order of the graph; layers of loop bodies have one step for each trip."""
        return self._read_graph(self.model.graph)

    @property
    def known(self) -> Mapping[str, TensorInfo]:
        """Shape and type of every tensor by name."""
        return self.found.known

    def uncosted(self) -> set[str]:
        """Return the names of operators whose arithmetic is unknown; their bytes are counted nevertheless."""
        return {
            node.op_type
            for node in self.model.graph.all_nodes()
            if not (facts.of(node).streams or self._contractions(node) or _runs_bodies(node))
        }

    def _read_graph(self, graph: ir.Graph) -> list[LayerWork]:
        return [layer for node in graph for layer in self._read(node)]

    def _read_bodies(self, node: ir.Node) -> list[LayerWork]:
        """Return the layers of a loop's body, or of a branch: the one that is taken, else the heavier one."""
        rounds = self.found.rounds.get(node, ONCE).count
        inside = [self.found.taken[node]] if node in self.found.taken else bodies(node)
        branches = [self._read_graph(body) for body in inside] if rounds else [[]]
        heaviest = max(branches, key=lambda layers: sum(layer.macs + layer.bytes for layer in layers))
        outer = node.name or node.op_type
        return [replace(x, name=f"{outer}/{x.name}", steps=x.steps * rounds) for x in heaviest]

    def _read(self, node: ir.Node) -> list[LayerWork]:
        with about(called(node)):
            return self._layers_of(node)

    def _layers_of(self, node: ir.Node) -> list[LayerWork]:
        if _runs_bodies(node):
            return self._read_bodies(node)
        if facts.of(node).cost in ("view", "early") or all(
            self._is_known_early(value) for value in node.outputs
        ):
            return []
        if node.op_type in _DECODERS and self._stored_name(node.outputs[0]) == self._stored_name(
            node.inputs[0]
        ):
            return []
        found = self._contractions(node)
        if found:
            return [self._contraction_layer(node, part, found) for part in found]
        return [self._streaming_layer(node)]

    def _contractions(self, node: ir.Node) -> list[Contraction]:
        try:
            return contractions(View(node, self.known))
        except (KeyError, IndexError):  # an operand without a known shape
            return []

    def _contraction_layer(self, node: ir.Node, part: Contraction, parts: Sequence[Contraction]) -> LayerWork:
        """Return the layer of one part of a node.

        The node's other inputs belong to the first part, its outputs to the last part that runs once.
        """
        last = [one for one in parts if one.steps == 1][-1]
        taken = {index for one in parts for index in (one.input, one.weight) if index is not None}
        rest = [self._input(node, i) for i in range(len(node.inputs)) if i not in taken and part is parts[0]]
        a, b, rest = self._with_parameters(
            node, self._input(node, part.input), self._input(node, part.weight), rest
        )
        outputs = [self._output(node, i) for i in range(len(node.outputs))] if part is last else []
        output = outputs.pop(0) if part.writes and outputs else NOTHING
        operator = facts.of(node)
        if self.logical and operator.past:
            past = [self._input(node, i) for i in operator.past if i < len(node.inputs)]
            outputs = [_added(*pair) for pair in zip(outputs, past, strict=False)] + outputs[len(past) :]
        if operator.cost in facts.CONVOLUTIONS:
            a = _touched(a, part.loops.elements[0])
        name = node.name or node.outputs[0].name or node.op_type
        number = self._number(node, a, b)
        return LayerWork(
            name=f"{name}/{part.label}" if part.label else name,
            op_type=node.op_type,
            number=number,
            loops=part.loops,
            input=a,
            weight=b,
            output=output,
            streamed=tuple(o for o in (*rest, *outputs) if o.bytes),
            produces=next((o.name for o in (output, *outputs) if o.bytes), ""),
            ops=part.ops,
            steps=part.steps,
        )

    def _with_parameters(
        self, node: ir.Node, a: Operand, b: Operand, rest: list[Operand]
    ) -> tuple[Operand, Operand, list[Operand]]:
        """Add the scales and zero points of packed weights to the weights they belong to."""
        if facts.of(node).cost != "packed product":
            return a, b, rest
        extra, others = rest[:2], rest[2:]
        elements = math.prod(int(node.attributes[key].value) for key in ("K", "N") if key in node.attributes)
        packed = replace(
            b,
            elements=elements,
            bytes=b.bytes + math.fsum(o.bytes for o in extra),
            bits=int(node.attributes["bits"].value) if "bits" in node.attributes else 4,
            encoded=True,
        )
        return a, packed, others

    def _streaming_layer(self, node: ir.Node) -> LayerWork:
        inputs = list({o.name: o for o in (self._input(node, i) for i in range(len(node.inputs)))}.values())
        outputs = [self._output(node, i) for i in range(len(node.outputs))]
        operator = facts.of(node)
        if operator.cost == "selection" and inputs and inputs[0].elements:
            inputs = self._selected(node, inputs, sum(o.elements for o in outputs))
        if self.logical and inputs and appends(node):
            inputs, outputs[0] = inputs[1:], _added(outputs[0], inputs[0])
        operands = tuple(o for o in (*inputs, *outputs) if o.bytes)
        elements = max((o.elements for o in operands), default=0)
        return LayerWork(
            name=node.name or node.outputs[0].name or node.op_type,
            op_type=node.op_type,
            number=Number(kind="float", bits=32),
            streamed=operands,
            produces=outputs[0].name if outputs else "",
            ops=elements * ops_per_element(operator),
        )

    def _selected(self, node: ir.Node, inputs: list[Operand], written: int) -> list[Operand]:
        """Return what a selection reads: as much of its first input as it writes, and of its scales."""
        if facts.of(node).codes != "packed" or node.inputs[0] is None or node.inputs[1] is None:
            return [_touched(inputs[0], written), *inputs[1:]]
        table, rows = (self.known[value.name or ""] for value in node.inputs[:2] if value is not None)
        share = rows.elements / table.shape[node.attributes.get_int("gather_axis", 0)]
        return [
            _touched(each, math.ceil(share * each.elements)) if each.is_weight else each for each in inputs
        ]

    def _number(self, node: ir.Node, a: Operand, b: Operand) -> Number:
        """Return the type that a node multiplies in: integers only if both operands are integers."""
        if node.op_type == "DynamicQuantizeMatMul" or _accuracy_level(node) == 4:
            return Number(kind="int", bits=8)
        operands = [o for o in (a, b) if o.elements]
        if operands and all(o.is_integer for o in operands):
            return Number(kind="int", bits=max(o.bits for o in operands))
        floats = [o.bits for o in operands if not o.is_integer and not (o.is_weight and o.encoded)]
        return Number(kind="float", bits=max(floats, default=32))

    def _input(self, node: ir.Node, index: int | None) -> Operand:
        value = node.inputs[index] if index is not None else None
        return self.operand(value) if value is not None else NOTHING

    def _output(self, node: ir.Node, index: int) -> Operand:
        return self.operand(node.outputs[index])

    def operand(self, value: ir.Value) -> Operand:
        """Return the tensor that stores a value."""
        found = self._operands.get(value)
        if found is None:
            found = self._operands[value] = self._look_at(value)
        return found

    def _look_at(self, value: ir.Value) -> Operand:
        if value in self._constants:
            return self._weight(value)
        if value.name in self.found.sequences:
            elements = self.found.sequences[value.name]
            size = math.fsum(info.elements * _bits(info.dtype) / 8 for info in elements)
            return Operand(value.name, sum(info.elements for info in elements), size)
        name = self._stored_name(value)
        info = self.known.get(name)
        if info is None:
            return NOTHING
        bits = _bits(info.dtype)
        zeros = self.zeros.get(value.name or "", self.zeros.get(name))
        size = info.elements * bits / 8
        return Operand(name, info.elements, size, False, zeros, bits, not info.dtype.is_floating_point())

    def _weight(self, value: ir.Value) -> Operand:
        """Return a constant as the codes, scales and tables that it is computed from."""
        leaves = self._constants[value]
        tensors = {leaf: leaf.const_value for leaf in leaves if leaf.const_value is not None}
        info = self.known.get(value.name or "")
        if not tensors or info is None or not info.elements:
            return NOTHING
        main = max(tensors, key=lambda leaf: (_bits(tensors[leaf].dtype) <= 8, tensors[leaf].size))
        codes = tensors[main]
        zeros, structured = sparsity.zeros(codes) if self.weight_zeros else (None, False)
        zeros = self.zeros.get(main.name or "", zeros)
        return Operand(
            name=main.name or "",
            elements=info.elements,
            bytes=math.fsum(tensor.nbytes for tensor in tensors.values()),
            is_weight=True,
            zeros=zeros,
            two_of_four=structured,
            # One code may hold several weights, and one byte several codes.
            bits=max(round(8 * codes.nbytes / info.elements), 1),
            # The first tensor is what is looked up in (a palette of floats) or what is scaled (integers).
            is_integer=next(iter(tensors.values())).dtype.is_integer(),
            encoded=codes.dtype != info.dtype,
        )

    @cached_property
    def _operands(self) -> dict[ir.Value, Operand]:
        """Operands that have been looked at."""
        return {}

    @cached_property
    def _constants(self) -> dict[ir.Value, tuple[ir.Value, ...]]:
        """Initializers, and values computed only from initializers, each with those it is computed from."""
        found: dict[ir.Value, tuple[ir.Value, ...]] = {
            value: (value,)
            for graph in self.model.graphs()
            for value in graph.initializers.values()
            if value.const_value is not None
        }
        for node in self.model.graph.all_nodes():
            inputs = [value for value in node.inputs if value is not None]
            if node.op_type in ("Shape", "Size"):
                found |= dict.fromkeys(node.outputs, ())
                continue
            if inputs and all(value in found for value in inputs):
                # In the graph as it runs, constants are folded already, and what is left does run.
                if not self.logical and all(found[value] for value in inputs):
                    continue
                leaves = tuple(dict.fromkeys(leaf for value in inputs for leaf in found[value]))
            else:
                continue
            for value in node.outputs:
                found[value] = leaves
        return found

    def _is_known_early(self, value: ir.Value) -> bool:
        return value in self._constants

    def _stored_name(self, value: ir.Value | None) -> str:
        """Return the name of the tensor that stores a value; views and Q/DQ are looked through."""
        if value is None:
            return ""
        name = self._stored.get(value)
        return name if name is not None else value.name or ""

    @cached_property
    def _stored(self) -> dict[ir.Value, str]:
        """Values stored by another tensor: its views and dequantized forms, and values quantized to it."""
        names: dict[ir.Value, str] = {}
        for node in self.model.graph.all_nodes():
            source = node.inputs[0] if node.inputs else None
            if source is None or not node.outputs or node.outputs[0].name in self.found.sequences:
                continue
            decodes = self.logical and node.op_type == "DequantizeLinear"
            if facts.of(node).cost == "view" or (decodes and not node.outputs[0].is_graph_output()):
                names[node.outputs[0]] = names.get(source, source.name or "")
            elif self.logical and node.op_type == "QuantizeLinear":
                for value in _seen_only_through(source):
                    names[value] = node.outputs[0].name or ""
        return names


def _runs_bodies(node: ir.Node) -> bool:
    """Tell whether all that a node does is to run its bodies."""
    return not node.domain and node.op_type in ("If", "Loop", "Scan", "SequenceMap")


def appends(node: ir.Node) -> bool:
    """Tell whether a node appends to a cache: the old cache is a graph input, the new one a graph output.

    Hardware appends in place; the old content is neither read nor written again.
    """
    if node.op_type not in ("Concat", "ScatterND", "ScatterElements", "TensorScatter"):
        return False
    old = node.inputs[0]
    return old is not None and old.is_graph_input() and node.outputs[0].is_graph_output()


def _added(new: Operand, old: Operand) -> Operand:
    """Return the part of a cache that is new."""
    if not old.bytes:
        return new
    return replace(new, elements=max(new.elements - old.elements, 0), bytes=max(new.bytes - old.bytes, 0.0))


def _touched(operand: Operand, elements: int) -> Operand:
    """Return the part of an operand that is read."""
    if elements >= operand.elements:
        return operand
    return replace(operand, elements=elements, bytes=operand.bytes * elements / operand.elements)


def _bits(dtype: ir.DataType) -> int:
    return 8 if dtype is ir.DataType.STRING else dtype.bitwidth


def _seen_only_through(value: ir.Value) -> list[ir.Value]:
    """Return a value and the values that it is a view of, as long as each has one reader only."""
    chain: list[ir.Value] = []
    producer = value.producer()
    while producer is not None and len(value.uses()) == 1 and not value.is_graph_output():
        chain.append(value)
        if facts.of(producer).cost != "view" or producer.inputs[0] is None:
            break
        value = producer.inputs[0]
        producer = value.producer()
    return chain


def _accuracy_level(node: ir.Node) -> int:
    found = node.attributes.get("accuracy_level")
    return int(found.value) if found is not None else 0
