"""Fusion: operators that run on the result of their producer before it is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace

from compress.estimator.hardware import Family
from compress.estimator.workload import NOTHING, LayerWork
from compress.graph import facts


def fuse(
    layers: Iterable[LayerWork], families: frozenset[Family], outputs: frozenset[str]
) -> list[LayerWork]:
    """Return the layers with operators of `families` fused into the producer of their input.

    An operator is fused if nothing else reads its producer's result. Its other inputs, such as the other
    branch of a residual Add, are still read.

    Args:
        layers: in the order of the graph.
        families: what the hardware fuses.
        outputs: names of tensors that are always written: the outputs of the graph.
    """
    layers = list(layers)
    readers: dict[str, int] = defaultdict(int)
    for layer in layers:
        for name in {operand.name for operand in layer.operands if operand.name != layer.produces}:
            readers[name] += 1
    done: list[LayerWork] = []
    position: dict[str, int] = {}
    for layer in layers:
        where = _fusable(layer, families, position, readers, outputs)
        if where is None:
            done.append(layer)
            where = len(done) - 1
        else:
            del position[done[where].produces]
            done[where] = _join(done[where], layer)
        if done[where].produces:
            position[done[where].produces] = where
    if "attention" in families:
        _keep_scores(done, {name for name in _scores(layers) - outputs if readers[name] == 1})
    return done


def _scores(layers: Iterable[LayerWork]) -> set[str]:
    """Return what a Softmax makes, and what elementwise operators such as a Cast make of that."""
    found: set[str] = set()
    for layer in layers:
        kind = facts.named(layer.op_type).cost
        passed = kind == "elementwise" and any(operand.name in found for operand in layer.streamed)
        if kind == "softmax" or passed:
            found.add(layer.produces)
    return found


def _keep_scores(layers: list[LayerWork], scores: Set[str]) -> None:
    """Leave out the write and the read of attention scores between two products of activations.

    Keys and values then cross once for every tile of queries (FlashAttention, Dao et al. 2022).
    """
    makers = {layer.produces: index for index, layer in enumerate(layers) if layer.produces in scores}
    for index, layer in enumerate(layers):
        maker = makers.get(layer.input.name)
        if maker is None or not all(map(_multiplies_activations, (layer, layers[maker]))):
            continue
        layers[maker] = replace(layers[maker], output=NOTHING, produces="")
        layers[index] = replace(layer, input=NOTHING)


def _multiplies_activations(layer: LayerWork) -> bool:
    return layer.loops is not None and not layer.weight.is_weight and bool(layer.weight.bytes)


def _fusable(
    layer: LayerWork,
    families: frozenset[Family],
    position: Mapping[str, int],
    readers: Mapping[str, int],
    outputs: frozenset[str],
) -> int | None:
    """Return the index of the latest producer that the layer can be fused into; None if there is none."""
    if layer.loops is not None or facts.named(layer.op_type).cost not in families:
        return None
    produced = [position[o.name] for o in layer.streamed if o.name in position]
    latest = max(produced, default=None)
    for operand in layer.streamed:
        if (
            position.get(operand.name) == latest
            and readers[operand.name] == 1
            and operand.name not in outputs
        ):
            return latest
    return None


def _join(producer: LayerWork, consumer: LayerWork) -> LayerWork:
    """Return the producer with the consumer's output in place of its own."""
    kept = tuple(o for o in consumer.streamed if o.name not in (producer.produces, consumer.produces))
    written = next((o for o in consumer.streamed if o.name == consumer.produces), NOTHING)
    ops = producer.ops + consumer.ops
    if producer.loops is not None and producer.output.name == producer.produces:
        streamed = producer.streamed + kept
        return replace(producer, output=written, streamed=streamed, produces=consumer.produces, ops=ops)
    streamed = tuple(o for o in producer.streamed if o.name != producer.produces) + kept + (written,)
    return replace(producer, streamed=streamed, produces=consumer.produces, ops=ops)
