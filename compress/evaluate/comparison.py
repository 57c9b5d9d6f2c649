"""What a variant of a model loses and gains, and why: the diagnosis of ``compress compare``.

It takes any two ONNX files with the same inputs and outputs, whoever made them. Layers are matched by
the names of their values.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from compress import units
from compress.data import shapes
from compress.diagnose import noise, sites
from compress.diagnose.agreement import Run, agreement, decibels
from compress.diagnose.kernels import Finding, slow, unfused
from compress.diagnose.outputs import read_outputs
from compress.diagnose.samples import random_feeds
from compress.diagnose.timing import latency
from compress.errors import DataError, InputError, ModelError, first_line
from compress.estimator.workload import WorkloadReader
from compress.graph import batch
from compress.graph.layers import Layer, layers_of
from compress.graph.optimized import as_run
from compress.graph.session import RUNTIME_ERRORS, session
from compress.graph.shapes import lay_out
from compress.graph.walks import epilogue, first_output
from compress.model import Model
from compress.quantize import regions
from compress.results import Agreement, Latency, Results
from compress.source import load

if TYPE_CHECKING:
    from compress.data import Data, Feeds

MOST_BATCHES = 4
"""Batches of data that the comparison reads."""
TIMED_RUNS = 20
"""Timed runs of one sample; the latency is their median."""
OUTLIER = 20.0
"""Magnitude of a feature, over the median feature's, from which it is called an outlier."""
NEGLIGIBLE = 1e-10
"""Noise over signal that float32 arithmetic makes when only the order of its sums differs."""
Cause = Literal[
    "saturation",
    "range",
    "outlier channel",
    "activations",
    "weights",
    "other shape",
    "no signal",
    "unknown",
    "none",
]
"""What a layer's noise comes from, in this order: sums that saturate in the integer kernel; values outside
a quantizer's range; a range that one large feature widens for all features; rounding of activations;
rounding of weights; channels removed from its output, or items that the data choose, so that outputs cannot
be compared; nothing but zeros in the original, beside which any noise is infinite; a cause that is not
measured, such as a changed float weight or amplified noise of its inputs; no noise at all."""
MENDABLE: tuple[Cause, ...] = ("saturation", "range", "outlier channel", "activations", "weights")
"""Causes that can be removed in the layer itself."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class LayerNoise(_Frozen):
    """How far one layer's output is from the original's."""

    name: str
    op_type: str
    snr_db: float | None
    """Signal over noise of its output; the noise of all layers before it is included. None without noise, or
    where the two cannot be compared."""
    added: float
    """Noise over signal at its output minus that at its inputs: the layer's own share."""
    cause: Cause
    clipped: float | None
    """Share of the original's values outside the ranges of its quantizers; None without quantizers."""
    saturation: float
    """The part of `added` that the integer kernel causes, if it is the larger part; else 0."""
    outlier: float | None
    """Largest magnitude of a feature over the median feature's, in what its quantizers read."""


class Comparison(_Frozen):
    """The comparison of a variant with its original."""

    schema_version: Literal[1] = 1
    original: str
    variant: str
    data: str
    """Where the inputs came from: the name of a function, or "random numbers"."""
    batches: int
    agreement: Agreement
    layers: list[LayerNoise]
    """In the original's order."""
    not_found: list[str]
    """Layers of the original whose values have no counterpart of the same name."""
    in_bodies: list[str]
    """Layers of the original in bodies of If, Loop and Scan, where no values are compared."""
    weight_bytes: tuple[int, int]
    """Stored bytes of the weights of the original and of the variant."""
    quantized_macs: float
    """Share of the variant's multiply-accumulates with integers on both sides."""
    quantized_weights: float
    """Share of the original's weight bytes that the variant stores in fewer bits."""
    still_float: dict[str, str]
    """Layers whose weight is float32 in the variant, with the reason if one is known."""
    latency: Latency
    """Latency of the variant, timed in turn with the original: for one sample, or for the first batch where
    it is not certain which axis of the inputs is the batch."""
    unfused: list[Finding]
    slow: list[Finding]

    def __repr__(self) -> str:
        before, after = self.weight_bytes
        parts = [
            self.agreement.figures[0],
            f"weights {units.si(before, 'B')} → {units.si(after, 'B')}",
            f"{units.ratio(self.latency.ratio, 1)} the time",
            *([f"{self.worst.name} loses most: {self.worst.cause}"] if self.worst else []),
        ]
        return f"Comparison({Path(self.variant).name} with {Path(self.original).name}: {', '.join(parts)})"

    __str__ = __repr__

    @property
    def worst(self) -> LayerNoise | None:
        """The layer that adds most noise; None if no layer adds any.

        Layers with a cause in `MENDABLE` come first: others, such as products of two activations, may only
        amplify noise that arises elsewhere.
        """
        worst = max(self.layers, key=lambda layer: (layer.cause in MENDABLE, layer.added), default=None)
        return worst if worst is not None and worst.added > 0 else None


def compare(
    original: str | os.PathLike[str],
    variant: str | os.PathLike[str],
    data: Data | None = None,
    *,
    described: str = "",
) -> Comparison:
    """Compare two ONNX files.

    Args:
        original: path of the original.
        variant: path of the variant.
        data: batches for the inputs; random numbers of the right type if left out.
        described: what the comparison calls `data`.

    Raises:
        ModelError: a file cannot be read, or inputs and outputs of the two differ.
        DataError: the data do not fit the inputs.
        PassError: the variant's outputs are not finite.
    """
    ours, theirs = _open(variant), _open(original)
    _check_same_interface(theirs, ours)
    feeds = _feeds(theirs, data)
    run, reference = _runner(variant), _runner(original)
    agreed = agreement(run, reference, feeds, read_outputs(theirs.graph))
    axes = batch.find(reference, theirs.graph.inputs, feeds[:1], data.batch_axis if data else "auto")
    found, not_found = sites.sites(theirs.graph, ours.graph)
    measured = noise.measure(theirs, ours, found, feeds)
    still_float, quantized_weights = _weights(theirs, ours, Path(variant))
    optimized = as_run(variant).graph
    return Comparison(
        original=os.fspath(original),
        variant=os.fspath(variant),
        data=described if data is not None else "random numbers",
        batches=len(feeds),
        agreement=agreed,
        layers=[_layer(site, measured) for site in found],
        not_found=not_found,
        in_bodies=[
            node.name or ""
            for node in theirs.graph.all_nodes()
            if node.graph is not theirs.graph and sites.is_layer(node)
        ],
        weight_bytes=(theirs.weight_bytes, ours.weight_bytes),
        quantized_macs=_quantized_macs(ours, feeds[0]),
        quantized_weights=quantized_weights,
        still_float=still_float,
        latency=latency(run, reference, axes.sample(feeds[0]), TIMED_RUNS),
        unfused=unfused(optimized),
        slow=slow(optimized),
    )


def _open(path: str | os.PathLike[str]) -> Model:
    if Path(path).suffix != ".onnx":
        raise ModelError(f"{os.fspath(path)}: compare takes two .onnx files")
    return load(path).prepared()


def _check_same_interface(original: Model, variant: Model) -> None:
    """Refuse two models that cannot be run on the same inputs, or whose outputs mean different things."""
    for what in ("inputs", "outputs"):
        theirs, ours = (
            {value.name or "": value for value in getattr(model.graph, what)} for model in (original, variant)
        )
        if list(theirs) != list(ours):
            raise ModelError(
                f"the {what} differ: {', '.join(theirs)} in the original, {', '.join(ours)} in the variant"
            )
        for name, value in theirs.items():
            if value.type != ours[name].type or _rank(value) != _rank(ours[name]):
                raise ModelError(
                    f"{what[:-1]} {name!r} differs: {_type(value)} in the original, "
                    f"{_type(ours[name])} in the variant"
                )


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _type(value: ir.Value) -> str:
    return f"{value.dtype}{'' if value.shape is None else value.shape}"


def _feeds(model: Model, data: Data | None) -> list[Feeds]:
    """Return the first batches of the data, or one of random numbers."""
    if data is None:
        return [random_feeds(model.ir)]
    return list(data.limited(MOST_BATCHES).feeds(model.graph.inputs))


def _runner(path: str | os.PathLike[str]) -> Run:
    """Return a function that runs a file; it raises `DataError` for inputs that the runtime refuses."""
    opened = session(path)

    def run(feeds: Feeds) -> list[np.ndarray]:
        try:
            outputs: list[np.ndarray] = opened.run(None, feeds)
        except RUNTIME_ERRORS as error:
            raise DataError(f"{os.fspath(path)} cannot run on these inputs: {first_line(error)}") from error
        return outputs

    return run


def _layer(site: sites.Site, measured: noise.Noise) -> LayerNoise:
    """Put together what was measured at one layer."""
    sums = measured.pairs[site.output]
    inputs = [measured.pairs[pair] for pair in site.inputs]
    comparable = math.isfinite(sums.noise) and (sums.signal > 0 or sums.noise == 0)
    added = _own(sums.ratio, [each.ratio for each in inputs]) if comparable else 0.0
    plain = _own(sums.plain_ratio, [each.plain_ratio for each in inputs])
    # Values near a rounding boundary may round either way, so the two differ a little without saturation.
    saturation = added - plain if added - plain > added / 2 and site.is_integer else 0.0
    spreads = [measured.spreads[site.name, name] for name in site.quantizers]
    cause = _cause(added, saturation, site.weight_rounding, spreads)
    if not comparable:
        cause = "no signal" if math.isfinite(sums.noise) else "other shape"
    return LayerNoise(
        name=site.name,
        op_type=site.op_type,
        snr_db=decibels(sums.signal, sums.noise),
        added=added,
        cause=cause,
        clipped=max((each.clipped_share for each in spreads), default=None),
        saturation=saturation,
        outlier=max((each.outlier for each in spreads), default=None),
    )


def _own(output: float, inputs: Sequence[float]) -> float:
    """Return noise over signal at an output minus that at its inputs, whose noises add up in a product."""
    carried = math.fsum(inputs)
    return max(output - carried, 0.0) if math.isfinite(carried) else 0.0


def _cause(added: float, saturation: float, weights: float, spreads: Sequence[noise.Spread]) -> Cause:
    """Return the largest source of a layer's own noise; all are given as noise over signal."""
    if added < NEGLIGIBLE:
        return "none"
    stretched = any(each.outlier >= OUTLIER for each in spreads)
    sources: dict[Cause, float] = {
        "saturation": saturation,
        "range": sum(each.clipping_ratio for each in spreads),
        "outlier channel" if stretched else "activations": sum(each.rounding_ratio for each in spreads),
        "weights": weights,
    }
    largest = max(sources, key=lambda cause: sources[cause])
    return largest if sources[largest] >= NEGLIGIBLE else "unknown"


def _weights(original: Model, variant: Model, path: Path) -> tuple[dict[str, str], float]:
    """Return the layers whose weight stays float32, each with a reason, and the byte share of the others."""
    float_values = {name for layer in _all_layers(variant) for name in _names(layer)}
    known = _reasons(original, variant, path)
    still: dict[str, str] = {}
    total = quantized = 0
    for layer in _all_layers(original):
        total += layer.nbytes
        if _names(layer) & float_values:
            still[layer.name] = known.get(layer.name, "")
        else:
            quantized += layer.nbytes
    return still, quantized / total if total else 0.0


def _all_layers(model: Model) -> Iterator[Layer]:
    """Yield the layers of a model, those in bodies of If, Loop and Scan too."""
    for node in model.graph.all_nodes():
        yield from layers_of(node)


def _names(layer: Layer) -> set[str | None]:
    """Return the names of a layer's output and of what is made of it by bias and activation."""
    output = first_output(layer.node)
    return set() if output is None else {value.name for value in epilogue(output)}


def _reasons(original: Model, variant: Model, path: Path) -> dict[str, str]:
    """Return why layers were skipped, from the results of the variant's run or else from the graph."""
    recorded = path.parent.parent / "results.json"
    if recorded.is_file():
        try:
            results = Results.load(recorded)
        except InputError:  # another program's file of that name
            return {}
        for each in results.variants:
            if (recorded.parent / each.path).resolve() == path.resolve():
                return {change.layer: change.skipped for change in each.changes if change.skipped}
    if any(node.op_type == "QuantizeLinear" for node in variant.graph):
        return regions.find(original.graph, lambda *names: True).skipped
    return {}


def _quantized_macs(variant: Model, feeds: Feeds) -> float:
    """Return the share of multiply-accumulates whose operands are both integers."""
    known = lay_out(variant.ir, shapes(feeds))
    work = WorkloadReader(variant.ir, known).layers()
    total = sum(layer.macs for layer in work)
    return sum(layer.macs for layer in work if layer.number.kind == "int") / total if total else 0.0
