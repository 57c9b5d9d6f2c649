"""The record of one operator; by default it claims nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias, get_args

MICROSOFT = "com.microsoft"
"""Domain of the operators that only ONNX Runtime knows."""
ML = "ai.onnx.ml"
"""Domain of ONNX's operators of classical machine learning."""
LAYOUTS = ("com.microsoft.nchwc", "com.ms.internal.nhwc")
"""Domains under which ONNX Runtime runs standard operators on its own layouts of images."""

Contracting: TypeAlias = Literal[
    "convolution",
    "deformable convolution",
    "transposed convolution",
    "product",
    "packed product",
    "einsum",
    "recurrent",
    "attention",
    "projected attention",
]
"""Costs of loop nests of multiply-accumulates, one formula each in `compress.estimator.operators.READERS`."""
Streaming: TypeAlias = Literal[
    "elementwise", "normalization", "pool", "softmax", "layout", "reduction", "selection", "view", "early"
]
"""Costs of reading, some scalar operations an element, and writing. A selection reads only as much of its
first input as it writes; a view moves nothing; what is known early is computed before the run."""
Cost: TypeAlias = Contracting | Streaming | Literal["unknown"]

CONVOLUTIONS = frozenset(("convolution", "deformable convolution", "transposed convolution"))
"""Costs of the contractions over windows of images."""
_CONTRACTIONS = frozenset(get_args(Contracting))


@dataclass(frozen=True, slots=True)
class Weight:
    """An input that holds a weight, and the axes of it that run over channels.

    ``Weight(1, 0, 1)`` is a convolution's: input 1, [outputs, inputs, kernel...]. `inputs` is None for the
    table of an embedding, whose rows are chosen and not summed over.
    """

    index: int
    outputs: int
    inputs: int | None


@dataclass(frozen=True, slots=True)
class Operator:
    """What an operator is. Statements on its arithmetic hold for its first input while the others stay.

    Attributes:
        name: its ONNX name.
        domain: "" for ONNX itself.
        cost: the formula that prices it.
        operands: how many leading inputs are data, not weights, shapes or settings; None for all.
        weights: inputs that hold a weight when they are constant.
        turned_by: attribute that swaps the two axes of the weight.
        bias: input with one number for each output channel, which is added.
        scale: input with one number for each channel, which multiplies.
        channel_axis: axis of the channels in its first input and output.
        gates: blocks of rows in the weight of a recurrent operator; 0 for others.
        past: inputs with past keys and values, whose grown versions are the outputs behind the first.
        elementwise: an element of the output depends on the elements in its place alone, and, where
            `channel_axis` is set, on settings of its channel.
        linear: ``f(x + y) + f(0) = f(x) + f(y)``: at most a constant is added.
        homogeneous: ``f(s x) = s f(x)`` for positive numbers s; of each channel where there are channels.
        adds: its output is the sum of its operands, as of the two ways of a residual block.
        monotone: if no element of the input falls, none of the output does.
        scale_invariant: ``f(s x) = f(x)`` for positive numbers s, a small epsilon aside.
        normalizes: divides by a statistic of its input or, trained, of its batch.
        moves_only: every element of the output is an element of a data input.
        sized_by_data: values of its inputs, and not their shapes alone, tell how much it gives.
        by_index: an input says which elements are moved where; else shapes and attributes say it.
        zeros: "keeps" if the fraction of zeros stays, "makes" if it may grow.
        cuts: cuts values off at constants, which the range of a quantizer right behind it does as well.
        on_integers: how ONNX Runtime's CPU provider runs it between Q/DQ pairs of 8 bits: it multiplies
            codes, computes with codes of different scales, or passes codes on; "" if it computes in float.
        codes: how what it multiplies or decodes is stored: "int8" for one code an element, "packed" for
            codes of few bits with a scale for each block; "" for floats.
        finds_range: rounds its first input to 8 bits in the range that each run finds.
    """

    name: str
    _: KW_ONLY
    domain: str = ""
    cost: Cost = "unknown"
    operands: int | None = 1
    weights: tuple[Weight, ...] = ()
    turned_by: str = ""
    bias: int | None = None
    scale: int | None = None
    channel_axis: int | None = None
    gates: int = 0
    past: tuple[int, ...] = ()
    elementwise: bool = False
    linear: bool = False
    homogeneous: bool = False
    adds: bool = False
    monotone: bool = False
    scale_invariant: bool = False
    normalizes: bool = False
    moves_only: bool = False
    sized_by_data: bool = False
    by_index: bool = False
    zeros: Literal["", "keeps", "makes"] = ""
    cuts: bool = False
    on_integers: Literal["", "multiplies", "computes", "passes"] = ""
    codes: Literal["", "int8", "packed"] = ""
    finds_range: bool = False

    @property
    def is_known(self) -> bool:
        """Whether the table has it."""
        return self.name != ""

    @property
    def contracts(self) -> bool:
        """Whether it multiplies and accumulates."""
        return self.cost in _CONTRACTIONS

    @property
    def multiplies_codes(self) -> bool:
        """Whether it multiplies a weight of 8-bit integers."""
        return self.contracts and self.codes == "int8"

    @property
    def streams(self) -> bool:
        """Whether bytes read and written tell its cost; an Einsum's if it is no single product."""
        return self.cost != "unknown" and (self.cost == "einsum" or not self.contracts)

    @property
    def is_recurrent(self) -> bool:
        """Whether it runs step by step over a sequence."""
        return self.gates > 0

    @property
    def rearranges(self) -> bool:
        """Whether shapes and attributes alone say where it moves what."""
        return self.moves_only and not self.by_index


UNKNOWN = Operator("")
"""The record of every operator that the table does not have."""


def each(kind: Callable[..., Operator], *names: str, **claims: Any) -> tuple[Operator, ...]:
    """Return the records of operators of which the same is true."""
    return tuple(kind(name, **claims) for name in names)
