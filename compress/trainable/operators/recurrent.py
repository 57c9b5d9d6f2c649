"""RNN, GRU and LSTM.

What torch's own recurrent kernels can do goes through them, everything else (peepholes, clipping,
other activations, sequences of different lengths, GRUs that reset before the product) through a
loop over time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.activation import named_activation
from compress.trainable.operators.table import Weight, operator

State = tuple[Tensor, ...]
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Direction:
    """One direction of a recurrent node: weights [gates x hidden, ...] and how to step."""

    w: Tensor
    r: Tensor
    wb: Tensor
    rb: Tensor
    peepholes: Tensor | None
    activations: list[Activation]
    clip: float | None
    reverse: bool

    def bounded(self, x: Tensor) -> Tensor:
        """Clip what goes into an activation, if the node asks for it."""
        return x if self.clip is None else x.clamp(-self.clip, self.clip)


Cell = Callable[[_Direction, Tensor, State], State]
Kernel = Callable[..., tuple[Tensor, ...]]


class Recurrence(TypedDict, total=False):
    """Attributes of every recurrent operator."""

    activation_alpha: Sequence[float]
    activation_beta: Sequence[float]
    activations: Sequence[str]
    clip: float
    direction: str
    hidden_size: int
    layout: int


@dataclass(frozen=True, slots=True)
class _Layer:
    """A recurrent node: its weights, first axis the directions, and the attributes that all kinds share."""

    w: Tensor
    r: Tensor
    b: Tensor
    peepholes: Tensor | None
    direction: str
    names: list[str]
    """Activations of all directions, in lower case."""
    alphas: Sequence[float]
    betas: Sequence[float]
    clip: float | None
    batch_first: bool

    @classmethod
    def of(
        cls,
        w: Tensor,
        r: Tensor,
        b: Tensor | None,
        own: Sequence[str],
        recurrence: Recurrence,
        peepholes: Tensor | None = None,
    ) -> _Layer:
        """Return what inputs and attributes of a node say; `own` are the activations of one direction."""
        direction = recurrence.get("direction", "forward")
        names = recurrence.get("activations") or [*own] * (2 if direction == "bidirectional" else 1)
        return cls(
            w,
            r,
            w.new_zeros(w.shape[0], 2 * w.shape[1]) if b is None else b,
            peepholes,
            direction,
            [name.lower() for name in names],
            recurrence.get("activation_alpha", ()),
            recurrence.get("activation_beta", ()),
            recurrence.get("clip"),
            bool(recurrence.get("layout")),
        )

    @property
    def count(self) -> int:
        """Number of directions."""
        return 2 if self.direction == "bidirectional" else 1

    def is_plain(self, *own: str) -> bool:
        """Whether torch's kernel computes it: these activations, no clipping, no peepholes."""
        return self.names == [*own] * self.count and self.clip is None and self.peepholes is None

    def functions(self, place: int) -> list[Activation]:
        """Return the activations of one direction, with their own numbers."""
        alphas, betas = list(self.alphas), list(self.betas)
        functions = []
        for name in self.names:
            function, defaults = named_activation(name)
            numbers = [
                given.pop(0) if given else default
                for given, default in zip((alphas, betas), defaults, strict=False)
            ]
            functions.append(_bind(function, numbers))
        each = len(functions) // self.count
        return functions[place * each : (place + 1) * each]

    def directions(self) -> Iterator[_Direction]:
        """Yield each direction, with weights of its own."""
        for place in range(self.count):
            wb, rb = self.b[place].chunk(2)
            peepholes = None if self.peepholes is None else self.peepholes[place]
            reverse = self.direction == "reverse" or place == 1
            functions = self.functions(place)
            yield _Direction(self.w[place], self.r[place], wb, rb, peepholes, functions, self.clip, reverse)


def _bind(function: Callable[..., Tensor], numbers: Sequence[float]) -> Activation:
    return lambda x: function(x, *numbers)


def _run(
    cell: Cell, layer: _Layer, x: Tensor, lengths: Tensor | None, initial: list[Tensor]
) -> tuple[Tensor, ...]:
    """Loop over time in each direction.

    `x` is [time, batch, input], each initial state [directions, batch, hidden].
    """
    sequences, finals = [], []
    for place, direction in enumerate(layer.directions()):
        outputs, final = _run_direction(cell, direction, x, lengths, tuple(s[place] for s in initial))
        sequences.append(outputs)
        finals.append(final)
    return torch.stack(sequences, 1), *(torch.stack(states) for states in zip(*finals, strict=True))


def _run_direction(
    cell: Cell, direction: _Direction, x: Tensor, lengths: Tensor | None, state: State
) -> tuple[Tensor, State]:
    projected = F.linear(x, direction.w, direction.wb)
    steps = list(range(x.shape[0]))
    outputs: list[Tensor] = [x] * len(steps)
    for step in reversed(steps) if direction.reverse else steps:
        new = cell(direction, projected[step], state)
        outputs[step] = new[0]
        if lengths is not None:
            going = (step < lengths).unsqueeze(1)
            outputs[step] = torch.where(going, new[0], torch.zeros_like(new[0]))
            new = tuple(torch.where(going, after, before) for after, before in zip(new, state, strict=True))
        state = new
    return torch.stack(outputs), state


def _rnn_cell(direction: _Direction, projected: Tensor, state: State) -> State:
    (f,) = direction.activations
    return (f(direction.bounded(projected + F.linear(state[0], direction.r, direction.rb))),)


def _lstm_cell(direction: _Direction, projected: Tensor, state: State) -> State:
    hidden, memory = state
    f, g, h = direction.activations
    i, o, forget, c = (projected + F.linear(hidden, direction.r, direction.rb)).chunk(4, -1)
    if direction.peepholes is not None:
        p_i, p_o, p_f = direction.peepholes.chunk(3)
        i, forget = i + p_i * memory, forget + p_f * memory
    memory = f(direction.bounded(forget)) * memory + f(direction.bounded(i)) * g(direction.bounded(c))
    if direction.peepholes is not None:
        o = o + p_o * memory
    return f(direction.bounded(o)) * h(memory), memory


def _gru_cell(linear_before_reset: int) -> Cell:
    def step(direction: _Direction, projected: Tensor, state: State) -> State:
        (hidden,) = state
        f, g = direction.activations
        sizes = [2 * hidden.shape[-1], hidden.shape[-1]]
        x_zr, x_h = torch.split(projected, sizes, -1)
        r_zr, r_h = torch.split(direction.r, sizes)
        b_zr, b_h = torch.split(direction.rb, sizes)
        z, reset = f(direction.bounded(x_zr + F.linear(hidden, r_zr, b_zr))).chunk(2, -1)
        if linear_before_reset:
            recurrent = reset * F.linear(hidden, r_h, b_h)
        else:
            recurrent = F.linear(reset * hidden, r_h, b_h)
        new = g(direction.bounded(x_h + recurrent))
        return ((1 - z) * new + z * hidden,)

    return step


def _fast(
    kernel: Kernel, order: list[int], layer: _Layer, x: Tensor, initial: list[Tensor]
) -> tuple[Tensor, ...]:
    """Run torch's kernel; `order` says where ONNX keeps each of torch's gates."""

    def gates(tensor: Tensor) -> Tensor:
        parts = tensor.chunk(len(order))
        return torch.cat([parts[place] for place in order])

    parameters = []
    for w, r, b in zip(layer.w, layer.r, layer.b, strict=True):
        parameters += [gates(w), gates(r), *map(gates, b.chunk(2))]
    backwards = layer.direction == "reverse"
    states = [state.contiguous() for state in initial]
    start = states if kernel is torch.lstm else states[0]
    x = x.flip(0) if backwards else x
    y, *finals = kernel(x, start, parameters, True, 1, 0.0, False, layer.count == 2, False)
    y = y.flip(0) if backwards else y
    return y.reshape(*y.shape[:2], layer.count, -1).transpose(1, 2), *finals


def _recurrent(
    cell: Cell,
    kernel: Kernel | None,
    order: list[int],
    layer: _Layer,
    x: Tensor,
    lengths: Tensor | None,
    *initial: Tensor | None,
) -> tuple[Tensor, ...]:
    """Compute a recurrent node, by torch's kernel if there is one; layouts are turned here."""
    if layer.batch_first:
        x = x.transpose(0, 1)
    shape = (layer.count, x.shape[1], layer.r.shape[2])
    states = [
        x.new_zeros(shape) if state is None else state.transpose(0, 1) if layer.batch_first else state
        for state in initial
    ]
    if kernel is not None and lengths is None:
        result = _fast(kernel, order, layer, x, states)
    else:
        result = _run(cell, layer, x, lengths, states)
    if layer.batch_first:
        y, *finals = result
        return y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in finals)
    return result


@operator("RNN")
def rnn(
    x: Tensor,
    w: Weight,
    r: Weight,
    b: Weight | None = None,
    lengths: Tensor | None = None,
    initial: Tensor | None = None,
    **recurrence: Unpack[Recurrence],
) -> tuple[Tensor, ...]:
    """Elman network: all hidden states, and the last."""
    layer = _Layer.of(w, r, b, ["tanh"], recurrence)
    kernel = torch.rnn_tanh if layer.is_plain("tanh") else None
    return _recurrent(_rnn_cell, kernel, [0], layer, x, lengths, initial)


@operator("GRU")
def gru(
    x: Tensor,
    w: Weight,
    r: Weight,
    b: Weight | None = None,
    lengths: Tensor | None = None,
    initial: Tensor | None = None,
    *,
    linear_before_reset: int = 0,
    **recurrence: Unpack[Recurrence],
) -> tuple[Tensor, ...]:
    """Gated recurrent unit: all hidden states, and the last. ONNX's gates are z, r, h; torch's r, z, h."""
    layer = _Layer.of(w, r, b, ["sigmoid", "tanh"], recurrence)
    kernel = torch.gru if linear_before_reset and layer.is_plain("sigmoid", "tanh") else None
    return _recurrent(_gru_cell(linear_before_reset), kernel, [1, 0, 2], layer, x, lengths, initial)


@operator("LSTM")
def lstm(
    x: Tensor,
    w: Weight,
    r: Weight,
    b: Weight | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    peepholes: Weight | None = None,
    *,
    input_forget: int = 0,
    **recurrence: Unpack[Recurrence],
) -> tuple[Tensor, ...]:
    """Long short-term memory: all hidden states, the last, and the last memory.

    ONNX's gates are i, o, f, c; torch's i, f, c, o.
    """
    if input_forget:
        raise NotImplementedError("coupled gates (input_forget) are not supported")
    layer = _Layer.of(w, r, b, ["sigmoid", "tanh", "tanh"], recurrence, peepholes)
    kernel = torch.lstm if layer.is_plain("sigmoid", "tanh", "tanh") else None
    return _recurrent(_lstm_cell, kernel, [0, 2, 3, 1], layer, x, lengths, initial_h, initial_c)
