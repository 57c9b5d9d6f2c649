"""RNN, GRU and LSTM.

What torch's own recurrent kernels can do goes through them, everything else (peepholes, clipping,
other activations, sequences of different lengths, GRUs that reset before the product) through a
loop over time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.trainable.operators.table import Weight, operator

State = tuple[Tensor, ...]
Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, Callable[[Tensor, float | None, float | None], Tensor]] = {
    "affine": lambda x, a, b: (1.0 if a is None else a) * x + (0.0 if b is None else b),
    "elu": lambda x, a, b: F.elu(x, 1.0 if a is None else a),
    "hardsigmoid": lambda x, a, b: torch.clamp(
        (0.2 if a is None else a) * x + (0.5 if b is None else b), 0.0, 1.0
    ),
    "leakyrelu": lambda x, a, b: F.leaky_relu(x, 0.01 if a is None else a),
    "relu": lambda x, a, b: torch.relu(x),
    "scaledtanh": lambda x, a, b: (1.0 if a is None else a) * torch.tanh((1.0 if b is None else b) * x),
    "sigmoid": lambda x, a, b: torch.sigmoid(x),
    "softplus": lambda x, a, b: F.softplus(x),
    "softsign": lambda x, a, b: F.softsign(x),
    "tanh": lambda x, a, b: torch.tanh(x),
    "thresholdedrelu": lambda x, a, b: torch.where(x > (1.0 if a is None else a), x, 0.0),
}


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
class _Settings:
    """The attributes that all recurrent operators share."""

    direction: str
    activations: Sequence[str]
    alphas: Sequence[float]
    betas: Sequence[float]
    clip: float | None
    batch_first: bool

    @classmethod
    def of(cls, activations: Sequence[str], recurrence: Recurrence) -> _Settings:
        """Return what the attributes of a node say; `activations` are the operator's own, of a direction."""
        direction = recurrence.get("direction", "forward")
        return cls(
            direction,
            recurrence.get("activations") or [*activations] * (2 if direction == "bidirectional" else 1),
            recurrence.get("activation_alpha", ()),
            recurrence.get("activation_beta", ()),
            recurrence.get("clip"),
            bool(recurrence.get("layout")),
        )

    @property
    def count(self) -> int:
        """Number of directions."""
        return 2 if self.direction == "bidirectional" else 1

    def functions(self, place: int) -> list[Activation]:
        """Return the activations of one direction, with their own numbers."""
        alphas, betas = list(self.alphas), list(self.betas)
        functions = []
        for name in self.activations:
            function = _ACTIVATIONS.get(name.lower())
            if function is None:
                raise NotImplementedError(f"activation {name!r}")
            uses_alpha = name.lower() not in ("relu", "tanh", "sigmoid", "softsign", "softplus")
            uses_beta = name.lower() in ("affine", "scaledtanh", "hardsigmoid")
            alpha = alphas.pop(0) if alphas and uses_alpha else None
            beta = betas.pop(0) if betas and uses_beta else None
            functions.append(_bind(function, alpha, beta))
        each = len(functions) // self.count
        return functions[place * each : (place + 1) * each]


def _bind(
    function: Callable[[Tensor, float | None, float | None], Tensor], alpha: float | None, beta: float | None
) -> Activation:
    return lambda x: function(x, alpha, beta)


def _run(
    cell: Cell,
    settings: _Settings,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    initial: list[Tensor],
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Loop over time in each direction.

    `x` is [time, batch, input], each initial state [directions, batch, hidden].
    """
    if b is None:
        b = w.new_zeros(w.shape[0], 2 * w.shape[1])
    sequences, finals = [], []
    for place in range(settings.count):
        wb, rb = b[place].chunk(2)
        direction = _Direction(
            w[place],
            r[place],
            wb,
            rb,
            None if peepholes is None else peepholes[place],
            settings.functions(place),
            settings.clip,
            settings.direction == "reverse" or place == 1,
        )
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


Kernel = Callable[[Tensor, list[Tensor], list[Tensor], bool], tuple[Tensor, ...]]


def _fast(
    kernel: Kernel,
    order: list[int],
    settings: _Settings,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    initial: list[Tensor],
) -> tuple[Tensor, ...]:
    """Run torch's kernel; `order` says where ONNX keeps each of torch's gates."""

    def gates(tensor: Tensor) -> Tensor:
        parts = tensor.chunk(len(order))
        return torch.cat([parts[place] for place in order])

    parameters = []
    for place in range(settings.count):
        parameters += [gates(w[place]), gates(r[place])]
        biases = w.new_zeros(2 * w.shape[1]) if b is None else b[place]
        parameters += [gates(bias) for bias in biases.chunk(2)]
    backwards = settings.direction == "reverse"
    y, *finals = kernel(x.flip(0) if backwards else x, initial, parameters, settings.count == 2)
    y = y.flip(0) if backwards else y
    return y.reshape(*y.shape[:2], settings.count, -1).transpose(1, 2), *finals


def _recurrent(
    cell: Cell,
    kernel: Kernel | None,
    order: list[int],
    settings: _Settings,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    initial: list[Tensor | None],
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Compute a recurrent node, by torch's kernel if there is one; layouts are turned here."""
    if settings.batch_first:
        x = x.transpose(0, 1)
    shape = (settings.count, x.shape[1], r.shape[2])
    states = [
        x.new_zeros(shape) if state is None else state.transpose(0, 1) if settings.batch_first else state
        for state in initial
    ]
    if kernel is not None and settings.clip is None and lengths is None and peepholes is None:
        result = _fast(kernel, order, settings, x, w, r, b, states)
    else:
        result = _run(cell, settings, x, w, r, b, lengths, states, peepholes)
    if settings.batch_first:
        y, *finals = result
        return y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in finals)
    return result


def _plain(settings: _Settings, wanted: Sequence[str]) -> bool:
    """Whether the activations are the operator's own."""
    return [name.lower() for name in settings.activations] == [*wanted] * settings.count


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
    settings = _Settings.of(["Tanh"], recurrence)

    def kernel(x: Tensor, initial: list[Tensor], weights: list[Tensor], both: bool) -> tuple[Tensor, ...]:
        return torch.rnn_tanh(x, initial[0].contiguous(), weights, True, 1, 0.0, False, both, False)

    fast = kernel if _plain(settings, ["tanh"]) else None
    return _recurrent(_rnn_cell, fast, [0], settings, x, w, r, b, lengths, [initial])


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
    settings = _Settings.of(["Sigmoid", "Tanh"], recurrence)

    def kernel(x: Tensor, initial: list[Tensor], weights: list[Tensor], both: bool) -> tuple[Tensor, ...]:
        return torch.gru(x, initial[0].contiguous(), weights, True, 1, 0.0, False, both, False)

    fast = kernel if linear_before_reset and _plain(settings, ["sigmoid", "tanh"]) else None
    cell = _gru_cell(linear_before_reset)
    return _recurrent(cell, fast, [1, 0, 2], settings, x, w, r, b, lengths, [initial])


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
        raise NotImplementedError("input_forget: coupled gates")
    settings = _Settings.of(["Sigmoid", "Tanh", "Tanh"], recurrence)

    def kernel(x: Tensor, initial: list[Tensor], weights: list[Tensor], both: bool) -> tuple[Tensor, ...]:
        state = [part.contiguous() for part in initial]
        return torch.lstm(x, state, weights, True, 1, 0.0, False, both, False)

    fast = kernel if _plain(settings, ["sigmoid", "tanh", "tanh"]) else None
    initial = [initial_h, initial_c]
    return _recurrent(_lstm_cell, fast, [0, 2, 3, 1], settings, x, w, r, b, lengths, initial, peepholes)
