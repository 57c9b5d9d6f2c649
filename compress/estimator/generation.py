"""Text generation: a language model reads a prompt and writes tokens, with keys and values cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from compress.errors import ModelError
from compress.estimator.catalogue import as_profile
from compress.estimator.cost import Clock, Cost, cost
from compress.estimator.hardware import Number, Profile
from compress.estimator.parallel import estimate_parallel
from compress.estimator.residency import homes
from compress.estimator.scoring import Estimable, open_graph, read_workload
from compress.estimator.workload import LayerWork


@dataclass(frozen=True)
class Generation:
    """Cost of reading a prompt once, and of writing tokens after it."""

    prefill: Cost
    """The whole prompt in one run."""
    token: Cost
    """One token, with the cache filled to the middle of what is written."""
    tokens: int

    @property
    def total(self) -> Cost:
        """Prompt and tokens. Costs grow linearly with the context, so the middle token costs the mean."""
        return sum([self.token] * self.tokens, self.prefill)


@dataclass(frozen=True)
class _Dimensions:
    """Names of the symbolic dimensions of new, of cached and of all tokens, and of requests."""

    sequence: str
    past: str | None
    whole: str | None
    requests: str | None

    def bound(self, new: int, cached: int, batch: int) -> dict[str, int]:
        sizes = {self.sequence: new, self.past: cached, self.whole: new + cached}
        if batch > 1 and self.requests is None:
            raise ModelError("no input has an open dimension for the batch; export the model with one")
        sizes[self.requests] = batch
        return {name: size for name, size in sizes.items() if name is not None}


def estimate_generation(
    model: Estimable,
    hardware: str | Profile,
    *,
    prompt: int,
    tokens: int,
    batch: int = 1,
    devices: int = 1,
    sequence: str | None = None,
    past: str | None = None,
) -> Generation:
    """Return the cost of a prompt and of the tokens written after it, for all requests of a batch together.

    A graph with inputs for past keys and values is estimated as it is. A graph without them is read with
    the whole context, and a token is taken as one row of it: products with weights shrink to that row,
    and products of activations keep one row against all keys and values. These come from the outermost
    memory, as a cache would.

    Args:
        model: a graph with a symbolic dimension for the length of its input.
        hardware: as for `estimate`.
        prompt: tokens read at once.
        tokens: tokens written one by one; each reads all weights and the whole cache.
        batch: requests that are answered together; more than one need an open first dimension.
        devices: devices that share every layer, as in `estimate_parallel` with ``tensor``.
        sequence: name of the symbolic dimension of new tokens; if None, it is found among the inputs.
        past: name of the symbolic dimension of cached tokens; if None, it is found among the inputs.

    Raises:
        ModelError: the model has no such dimensions.
        HardwareError: the profile states no link between devices.
    """
    profile = as_profile(hardware)
    dimensions = _dimensions(open_graph(model), sequence, past)
    middle = prompt + tokens // 2

    def whole(new: int, cached: int) -> Cost:
        shapes = dimensions.bound(new, cached, batch)
        step = estimate_parallel(model, profile, devices, "tensor", shapes=shapes).total
        return step + _serving(profile, batch, devices)

    if dimensions.past is not None:
        return Generation(whole(prompt, 0), whole(1, middle), tokens)
    if batch > 1 or devices > 1:
        raise ModelError("a batch, or several devices, need a graph with inputs for past keys and values")
    return Generation(whole(prompt, 0), _one_row(model, profile, dimensions.sequence, middle), tokens)


def _serving(profile: Profile, batch: int, devices: int) -> Cost:
    """Return what a serving engine takes between two steps, while the devices only draw power."""
    if profile.request_seconds is None:
        return Cost()
    seconds = batch * profile.request_seconds.draws
    waits = LayerWork("requests", "", Number(kind="float", bits=32))
    one = cost(waits, profile, {}, Clock(seconds))[0]
    return replace(sum([one] * devices, Cost()), seconds=float(seconds[0]))


def _dimensions(model: ir.Model, sequence: str | None, past: str | None) -> _Dimensions:
    """Find the symbolic dimensions by the inputs they belong to."""
    inputs = [value for value in model.graph.inputs if value.shape is not None]
    caches = [value for value in inputs if _named(value, "past", "cache") and len(value.shape or ()) > 2]
    caches = [value for value in inputs if past in _symbols(value)] if past else caches
    masks = [value for value in inputs if "mask" in (value.name or "").lower()]
    others = [value for value in inputs if value not in caches and value not in masks]
    past = past or _symbol(caches)
    sequence = sequence or _symbol([value for value in others if len(value.shape or ()) > 1])
    if sequence is None:
        raise ModelError(
            "no input has an open dimension for the number of tokens; export the model with one, or name it "
            "with sequence= in Python"
        )
    whole = _symbol(masks)
    whole = whole if whole not in (None, sequence, past) and "+" not in whole else None
    firsts = (value.shape[0] for value in others if value.shape is not None and len(value.shape) > 1)
    requests = next((dim.value for dim in firsts if isinstance(dim, ir.SymbolicDim) and dim.value), None)
    return _Dimensions(sequence, past, whole, requests)


def _named(value: ir.Value, *words: str) -> bool:
    names = [value.name or "", *_symbols(value)] if value.shape is not None else [value.name or ""]
    return any(word in name.lower() for word in words for name in names)


def _symbols(value: ir.Value) -> list[str]:
    """Return the symbolic dimensions behind the batch."""
    dims = list(value.shape or ())[1:]
    return [dim.value for dim in dims if isinstance(dim, ir.SymbolicDim) and dim.value]


def _symbol(values: Sequence[ir.Value]) -> str | None:
    return next((name for value in values for name in _symbols(value)), None)


def _one_row(model: Estimable, profile: Profile, sequence: str, context: int) -> Cost:
    work = read_workload(model, profile, shapes={sequence: context})
    layers = [_row(layer, context) for layer in work.layers]
    cached = {layer.weight.name for layer in layers if layer.loops is not None and not layer.weight.is_weight}
    places = {
        name: parts for name, parts in homes(layers, profile, frozenset()).items() if name not in cached
    }
    return sum((cost(layer, profile, places)[0] for layer in layers), Cost())


def _row(layer: LayerWork, context: int) -> LayerWork:
    """Return the share of a layer that one of `context` tokens takes."""
    shared = replace(
        layer,
        input=layer.input.part(context),
        output=layer.output.part(context),
        streamed=tuple(operand.part(context) for operand in layer.streamed),
        ops=layer.ops / context,
    )
    if layer.loops is None:
        return shared
    rows, columns = layer.loops.out
    return replace(shared, loops=replace(layer.loops, out=(max(rows // context, 1), columns)))
