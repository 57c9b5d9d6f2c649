"""Quantize one ONNX file by one method, ours or a peer's, and print seconds and peak memory as JSON.

``python quantization_methods.py METHOD FLOAT.onnx CALIBRATION.npz VARIANT.onnx``, where METHOD is a key
of `PEERS` or our passes as a recipe writes them: ``int8-static``, ``int4-weights: {group_size: 128}``,
``[equalize, int8-static]``, ``int8-static: {weight_bits: 4, rounding: blocks}``. One process a method,
so that memory is the method's own and a crash ends nothing else. Seconds include the imports that the
method needs.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Batches = list[dict[str, np.ndarray]]
GROUP = 128
RSS_UNIT = 1024


def save_batches(batches: Iterator[dict[str, np.ndarray]], path: Path) -> None:
    """Write calibration batches as one file."""
    arrays = {f"{i}/{name}": array for i, feeds in enumerate(batches) for name, array in feeds.items()}
    np.savez(path, allow_pickle=False, **arrays)


def read_batches(path: Path) -> Batches:
    """Read what `save_batches` wrote."""
    batches: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path) as stored:
        for key in stored.files:
            number, _, name = key.partition("/")
            batches.setdefault(int(number), {})[name] = stored[key]
    return [batches[number] for number in sorted(batches)]


def ours(line: str, source: Path, batches: Batches, target: Path) -> None:
    """Apply our passes and print what they did to how many layers."""
    from ruamel.yaml import YAML

    import compress
    from compress.passes.base import get

    written = YAML(typ="safe").load(line)
    passes = []
    for each in written if isinstance(written, list) else [written]:
        name, settings = next(iter(each.items())) if isinstance(each, dict) else (each, {})
        passes.append(get(name)(**settings))
    model = compress.Pipeline(passes)(compress.load(source, calibration=batches))
    model.save(target)
    for change in model.changes:
        print(
            f"{change.by}: {change.layer}: {change.action or f'skipped: {change.skipped}'}", file=sys.stderr
        )


class _Reader:
    """Calibration batches as ORT's tools take them."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.rewind()

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch; None after the last."""
        return next(self._left, None)

    def rewind(self) -> None:
        """Start again."""
        self._left = iter(self.batches)


def _ort_static(source: Path, batches: Batches, target: Path, **settings: Any) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    CalibrationDataReader.register(_Reader)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        try:
            quant_pre_process(str(source), str(prepared))
        except Exception:  # ORT raises no narrower one where its symbolic inference gives up, as on MiniLM
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(str(prepared), str(target), _Reader(batches), **settings)


def ort_static(source: Path, batches: Batches, target: Path) -> None:
    """ORT's static quantization as it stands: signed activations, one scale a tensor, min-max."""
    _ort_static(source, batches, target)


def ort_static_u8s8(source: Path, batches: Batches, target: Path) -> None:
    """ORT's static quantization as its guide advises for x86: U8S8 per channel, 7 bits without VNNI."""
    from onnxruntime.quantization import QuantType

    from compress.cpu import saturates

    _ort_static(
        source,
        batches,
        target,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=saturates(),
    )


def ort_static_percentile(source: Path, batches: Batches, target: Path) -> None:
    """ORT's static quantization with its histogram calibration."""
    from onnxruntime.quantization import CalibrationMethod

    _ort_static(source, batches, target, calibrate_method=CalibrationMethod.Percentile)


def ort_dynamic(source: Path, batches: Batches, target: Path) -> None:
    """ORT's dynamic quantization."""
    from onnxruntime.quantization import quantize_dynamic

    from compress.cpu import saturates

    quantize_dynamic(source, target, per_channel=True, reduce_range=saturates())


def _ort_four_bits(source: Path, target: Path, algorithm: Any) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(source), block_size=GROUP, is_symmetric=True, accuracy_level=4, algo_config=algorithm
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


def ort_rtn(source: Path, batches: Batches, target: Path) -> None:
    """ORT's round to nearest in 4 bits, groups of 128, symmetric."""
    _ort_four_bits(source, target, None)


def ort_hqq(source: Path, batches: Batches, target: Path) -> None:
    """ORT's HQQ in 4 bits, groups of 128."""
    from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig

    _ort_four_bits(source, target, HQQWeightOnlyQuantConfig(block_size=GROUP))


def ort_gptq(source: Path, batches: Batches, target: Path) -> None:
    """ORT's GPTQ in 4 bits, groups of 128 (it calls Intel's neural-compressor)."""
    from onnxruntime.quantization import CalibrationDataReader
    from onnxruntime.quantization.matmul_nbits_quantizer import GPTQWeightOnlyQuantConfig

    CalibrationDataReader.register(_Reader)
    _ort_four_bits(source, target, GPTQWeightOnlyQuantConfig(_Reader(batches), block_size=GROUP))


def ort_k_quant(source: Path, batches: Batches, target: Path) -> None:
    """ORT's k-quant in 4 bits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import KQuantWeightOnlyQuantConfig

    _ort_four_bits(source, target, KQuantWeightOnlyQuantConfig())


def nncf_int8(source: Path, batches: Batches, target: Path) -> None:
    """NNCF's static quantization as it stands."""
    import nncf
    import onnx

    model = nncf.quantize(onnx.load(source), nncf.Dataset(batches), subset_size=len(batches))
    onnx.save(model, target)


PEERS: dict[str, Callable[[Path, Batches, Path], None]] = {
    "ort-static": ort_static,
    "ort-static-u8s8": ort_static_u8s8,
    "ort-static-percentile": ort_static_percentile,
    "ort-dynamic": ort_dynamic,
    "ort-rtn4": ort_rtn,
    "ort-hqq4": ort_hqq,
    "ort-gptq4": ort_gptq,
    "ort-k-quant4": ort_k_quant,
    "nncf-int8": nncf_int8,
}


def main(method: str, source: Path, calibration: Path, target: Path) -> None:
    """Quantize, and print what it took."""
    batches = read_batches(calibration)
    start = time.perf_counter()
    if method in PEERS:
        PEERS[method](source, batches, target)
    else:
        ours(method, source, batches, target)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
