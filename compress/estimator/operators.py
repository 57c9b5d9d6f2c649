"""What an operator costs: its loop nests, or how many scalar operations an element takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from compress.estimator.mapping import Loops
from compress.graph import facts

if TYPE_CHECKING:
    import onnx_ir as ir

    from compress.graph.facts import Operator
    from compress.graph.tensor_info import TensorInfo

_OPS: Mapping[str, float] = {"softmax": 5.0, "normalization": 6.0, "layout": 0.0}
"""Scalar operations an element: softmax takes max, subtract, exp, sum, divide; a normalization takes
mean, subtract, square, sum, scale, shift; moving takes none."""


@dataclass(frozen=True)
class View:
    """A node with the concrete shapes around it."""

    node: ir.Node
    known: Mapping[str, TensorInfo]

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of an input."""
        value = self.node.inputs[index]
        return self.known[value.name or ""].shape if value is not None else ()

    @property
    def out(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.known[self.node.outputs[0].name or ""].shape

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute's value; lists come as tuples."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value


@dataclass(frozen=True)
class Contraction:
    """A loop nest and which inputs of the node it reads."""

    loops: Loops
    input: int | None
    """Index of the node's input that is multiplied; None for a result held on the chip."""
    weight: int | None
    """Index of the node's input that it is multiplied by; None for a result held on the chip, and for one
    that was read with `input`."""
    steps: int = 1
    """How often the nest runs; each step needs the one before it (recurrent layers)."""
    ops: float = 0.0
    """Scalar operations of one step besides the nest (gates, softmax of scores)."""
    writes: bool = True
    """Whether the result leaves the units."""
    label: str = ""
    """Which part of the node, where it has several."""


Reader: TypeAlias = Callable[[View], "list[Contraction]"]


def ops_per_element(operator: Operator) -> float:
    """Return scalar operations per element, of the larger of what is read and what is written."""
    return _OPS.get(operator.cost, 1.0)


def contractions(view: View) -> list[Contraction]:
    """Return the loop nests of a node; none if it is not a contraction."""
    operator = facts.of(view.node)
    return READERS[operator.cost](view) if operator.contracts else []


def _weight_index(view: View) -> int:
    """Return the index of the second factor: the input of the weight, whether it is constant or not."""
    weights = facts.of(view.node).weights
    return weights[0].index if weights else 1


def _convolution(view: View) -> list[Contraction]:
    index = _weight_index(view)
    x, w, y = view.shape(0), view.shape(index), view.out
    if view.attribute("channels_last", 0) or facts.of(view.node).channel_axis == -1:
        x, y = (x[0], x[-1], *x[1:-1]), (y[0], y[-1], *y[1:-1])
    return [Contraction(_conv_loops(view, x, w, y), 0, index)]


def _conv_loops(view: View, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]) -> Loops:
    groups, rank = int(view.attribute("group", 1)), len(y) - 2
    kernel, out = _plane(w[2:]), _plane(y[2:])
    stride = _plane(view.attribute("strides", (1,) * rank))
    dilation = _plane(view.attribute("dilations", (1,) * rank))
    size = _plane(x[2:])
    reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, stride, kernel, dilation, strict=True)]
    # A third dimension counts as more images, its kernel as more channels: reuse along it is not modelled.
    deep = rank == 3
    return Loops(
        groups=groups,
        n=x[0] * (y[2] if deep else 1),
        m=w[0] // groups,
        c=w[1] * (w[2] if deep else 1),
        out=out,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=(max(reach[0] - size[0], 0), max(reach[1] - size[1], 0)),
    )


def _plane(sizes: tuple[int, ...]) -> tuple[int, int]:
    """Return the last two spatial sizes, a 1 before a single one."""
    rows, columns = (1, 1, *(int(size) for size in sizes))[-2:]
    return rows, columns


def _transposed_convolution(view: View) -> list[Contraction]:
    """Each input pixel becomes a window of outputs: a product of [pixels, C] and [C, M * window]."""
    x, w = view.shape(0), view.shape(1)
    groups = int(view.attribute("group", 1))
    loops = Loops(groups, 1, w[1] * math.prod(w[2:]), w[0] // groups, (x[0] * math.prod(x[2:]), 1))
    return [Contraction(loops, 0, 1)]


def _product(view: View) -> list[Contraction]:
    index = _weight_index(view)
    a, b = view.shape(0), view.shape(index)
    if view.attribute("transA", 0):
        a = (*a[:-2], a[-1], a[-2])
    if view.attribute("transB", 0):
        b = (*b[:-2], b[-1], b[-2])
    return [Contraction(_product_loops(a, b), 0, index)]


def _product_loops(a: tuple[int, ...], b: tuple[int, ...]) -> Loops:
    columns = b[-1] if len(b) > 1 else 1
    rows = a[-2] if len(a) > 1 else 1
    batch, shared = math.prod(a[:-2]), math.prod(b[:-2])
    if shared == 1:
        return Loops(m=columns, c=a[-1], out=(batch * rows, 1))
    return Loops(groups=max(batch, shared), m=columns, c=a[-1], out=(rows, 1))


def _packed_product(view: View) -> list[Contraction]:
    """MatMulNBits and similar operators: the sizes of the packed weight are the attributes K and N."""
    a = view.shape(0)
    loops = Loops(
        m=int(view.attribute("N", 1)), c=int(view.attribute("K", a[-1])), out=(math.prod(a[:-1]), 1)
    )
    return [Contraction(loops, 0, 1)]


def _einsum(view: View) -> list[Contraction]:
    """Two operands: labels in both and in the output are groups, labels not in the output are summed.

    Einsum of one operand is a reduction; of three and more it is not modelled.
    """
    if len(view.node.inputs) != 2:
        return []
    terms, arrow, result = str(view.attribute("equation", "")).replace(" ", "").partition("->")
    left, _, right = terms.partition(",")
    left, right = _spell_out(left, view.shape(0)), _spell_out(right, view.shape(1))
    if not arrow:
        result = "".join(label for label in set(left + right) if (left + right).count(label) == 1)
    result = result.replace("...", "".join(sorted(set(left + right) & set(_BATCH_LABELS))))
    sizes = dict(zip(left + right, view.shape(0) + view.shape(1), strict=True))

    def extent(labels: set[str]) -> int:
        return math.prod(sizes[label] for label in labels)

    a, b, out = set(left), set(right), set(result)
    loops = Loops(
        extent(a & b & out), 1, extent(b & out - a), extent((a | b) - out), (extent(a & out - b), 1)
    )
    return [Contraction(loops, 0, 1)]


_BATCH_LABELS = "01234567"
"""Labels that stand for the dimensions of an ellipsis, the last dimension first."""


def _spell_out(term: str, shape: tuple[int, ...]) -> str:
    hidden = len(shape) - len(term.replace("...", ""))
    return term.replace("...", "".join(reversed(_BATCH_LABELS[:hidden])))


def _recurrent(view: View) -> list[Contraction]:
    """The product of the inputs for all steps at once, then that of the state step by step."""
    x, w, r = view.shape(0), view.shape(1), view.shape(2)
    steps, batch = (x[1], x[0]) if view.attribute("layout", 0) else (x[0], x[1])
    operator = facts.of(view.node)
    gates, directions, hidden = operator.gates, w[0], r[operator.weights[1].inputs or 0]
    inputs = Loops(directions, 1, gates * hidden, x[-1], (steps * batch, 1))
    state = Loops(directions, 1, gates * hidden, hidden, (batch, 1))
    return [
        Contraction(inputs, 0, 1, writes=False, label="inputs"),
        Contraction(state, None, 2, steps, 4.0 * state.elements[2], label="state"),
    ]


def _attention(view: View) -> list[Contraction]:
    """Fused attention: scores stay on the chip."""
    q, k, v = view.shape(0), view.shape(1), view.shape(2)
    if not k or not v:
        return _packed_attention(view)
    heads = int(view.attribute("num_heads", view.attribute("q_num_heads", q[1] if len(q) == 4 else 1)))
    batch, queries = q[0], q[-2]
    keys = max(k[-2], _cached(view))
    width = q[-1] if len(q) == 4 else q[-1] // heads
    out = view.out
    out_width = out[-1] if len(out) == 4 else out[-1] // heads
    return _score_products(batch * heads, queries, keys, width, out_width, (0, 1, 2))


def _cached(view: View) -> int:
    """Return how many keys there are in the cache that an attention puts out, 0 if it puts none out."""
    return max((view.known[o.name or ""].shape[-2] for o in view.node.outputs[1:3] if o.name), default=0)


def _packed_attention(view: View) -> list[Contraction]:
    """Query, key and value side by side in one input; past keys and values come apart."""
    batch, length, out_width = view.out[0], view.out[1], view.out[-1]
    heads = int(view.attribute("num_heads", 1))
    width, keys = out_width // heads, max(length, _cached(view))
    return _score_products(batch * heads, length, keys, width, width, (0, None, None))


def _score_products(
    groups: int,
    queries: int,
    keys: int,
    width: int,
    out_width: int,
    indices: tuple[int | None, int | None, int | None],
) -> list[Contraction]:
    scores = Loops(groups, 1, keys, width, (queries, 1))
    values = Loops(groups, 1, out_width, keys, (queries, 1))
    return [
        Contraction(scores, *indices[:2], ops=5.0 * scores.elements[2], writes=False, label="scores"),
        Contraction(values, None, indices[2], label="values"),
    ]


def _projected_attention(view: View) -> list[Contraction]:
    """The contrib Attention operator: projection of q, k and v, then attention."""
    x, w = view.shape(0), view.shape(1)
    heads = int(view.attribute("num_heads", 1))
    projection = Loops(m=w[-1], c=x[-1], out=(math.prod(x[:-1]), 1))
    width = view.out[-1] // heads
    return [
        Contraction(projection, 0, 1, writes=False, label="projection"),
        *_score_products(x[0] * heads, x[1], x[1], width, width, (None, None, None)),
    ]


READERS: Mapping[str, Reader] = {
    "convolution": _convolution,
    "deformable convolution": _convolution,
    "transposed convolution": _transposed_convolution,
    "product": _product,
    "packed product": _packed_product,
    "einsum": _einsum,
    "recurrent": _recurrent,
    "attention": _attention,
    "projected attention": _projected_attention,
}
"""The formula of every cost in which products are summed."""
