"""Pack the networks of the zoo, and print what that saves beside general compressors and ZipNN.

``python benchmarks/packing.py [--models minilm,legere] [--forms float32,int8] [--json FILE]``

Every network is packed as float32, bfloat16, int8 and int4 (weights alone, rounded to nearest). For each:
the ONNX file; the packed file, ``zstd -19`` and ``lzma`` (preset 6) of the ONNX file, as shares of it; of
the weights of 1 MB and more, what they take packed over the order-0 entropy of their codes (bytes, or
nibbles where packed two by two); the speeds of coding and decoding on one core, in decoded bytes a second
of processor time; and the time to a session, packed over plain, each file out of the system's cache.

``python benchmarks/packing.py --memory`` packs and unpacks a model of 2 GB, and prints the memory taken.

ZipNN is for bfloat16 and needs an environment of its own, as said in ``benchmarks/requirements.txt``.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import zstandard
from quantization import CACHE, PEERS_PYTHON, prepare, run
from rich.console import Console
from rich.table import Table
from zoo import ENTRIES, entry

import compress
from compress import codec
from compress.codec.clusters import Shape
from compress.codec.coders import CHUNK_BYTES, encode
from compress.codec.container import Reader
from compress.passes import Int4Weights, Int8Weights

FORMS = {
    "float32": None,
    "bfloat16": None,
    "int8": Int8Weights(),
    "int4": Int4Weights(solver="rtn"),
}
LARGE = 1_000_000
"""Bytes of a weight from which on it is held against its entropy."""
LOADS = 3


@dataclass
class Row:
    """What packing made of one file."""

    model: str
    form: str
    bytes: int
    packed: float
    zstd_19: float
    lzma: float
    zipnn: float
    """Its share of the weights alone; NaN where it does not apply."""
    weights: float
    """Ours of the weights alone."""
    over_entropy: float
    encode_mb: float
    decode_mb: float
    load: float
    """Time to a session over that of the ONNX file; NaN if the runtime does not take the model."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(each.name for each in ENTRIES))
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--memory", action="store_true", help="measure the memory that 2 GB take")
    parser.add_argument("--measured", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measured:
        print(json.dumps(MEASURED[options.measured[0]](Path(options.measured[1]))))
        return
    if options.memory:
        memory()
        return
    rows = []
    for name in options.models.split(","):
        for form in options.forms.split(","):
            print(f"{name}: {form}", file=sys.stderr, flush=True)
            rows.append(measure(name, form))
            if options.json:
                options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    show(rows)


def measure(name: str, form: str) -> Row:
    """Pack one network in one form."""
    path = variant(name, form)
    packed = path.with_suffix(".packed")
    codec.pack(path, packed)
    size = path.stat().st_size
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(lambda squeeze: squeeze(path.read_bytes()), (zstd_19, lzma_6)))
    weights = [weight for weight in stored(path) if weight.nbytes >= 1024]
    share, encode_mb, decode_mb = speeds(path, packed)
    return Row(
        name,
        form,
        size,
        packed.stat().st_size / size,
        sizes[0] / size,
        sizes[1] / size,
        zipnn(weights) if form == "bfloat16" else float("nan"),
        share,
        over_entropy(path, packed),
        encode_mb,
        decode_mb,
        loading(path, packed) if form != "bfloat16" else float("nan"),
    )


def variant(name: str, form: str) -> Path:
    """Return the ONNX file of a network in one form, made at the first call."""
    folder = prepare(entry(name))
    path = folder / f"packing-{form}.onnx"
    if form == "float32":
        return folder / "float.onnx"
    if form == "bfloat16":
        model = onnx.load(folder / "float.onnx")
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                brain = to_bfloat16(onnx.numpy_helper.to_array(tensor))
                tensor.raw_data, tensor.data_type = brain.tobytes(), onnx.TensorProto.BFLOAT16
        onnx.save(model, path)
    else:
        compress.Pipeline([FORMS[form]])(compress.load(folder / "float.onnx")).save(path)
    return path


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest bfloat16, as uint16."""
    bits = array.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def zstd_19(data: bytes) -> int:
    """Return the size that ``zstd -19`` gives."""
    return len(zstandard.ZstdCompressor(level=19).compress(data))


def lzma_6(data: bytes) -> int:
    """Return the size that ``xz`` gives."""
    return len(lzma.compress(data))


def stored(path: Path) -> list[np.ndarray]:
    """Return the initializers of a file, as bytes."""
    return [np.frombuffer(tensor.raw_data, np.uint8) for tensor in onnx.load(path).graph.initializer]


def zipnn(weights: list[np.ndarray]) -> float:
    """Return ZipNN's share of bfloat16 weights; NaN without it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "weights").write_bytes(b"".join(weight.tobytes() for weight in weights))
        found = run(PEERS_PYTHON, "packing_zipnn.py", str(Path(folder, "weights")))
    if isinstance(found, str):
        print(f"zipnn: {found}", file=sys.stderr)
        return float("nan")
    return float(found["share"])


def speeds(path: Path, packed: Path) -> tuple[float, float, float]:
    """Return the share of the weights when coded, and the MB/s of coding and of decoding on one core."""
    shapes = {
        tensor.name: Shape.of(tensor.dims, len(tensor.raw_data))
        for tensor in onnx.load(path).graph.initializer
    }
    with Reader(packed) as reader:
        streams = [(n, s) for n, s in enumerate(reader.index.streams) if s.name and s.bytes]
        total = sum(stream.bytes for _, stream in streams)
        coding = decoding = 0.0
        for number, stream in streams:
            for chunk in range(len(stream.chunks)):
                out = np.empty(min(CHUNK_BYTES, stream.bytes - chunk * CHUNK_BYTES), np.uint8)
                decoding += least_seconds(lambda: reader.fill(number, chunk, out), 2)  # noqa: B023
                shape = shapes[stream.name]
                shape = shape and shape._replace(start=chunk * CHUNK_BYTES)
                coding += least_seconds(lambda: encode(out, stream.kind, shape), 1)  # noqa: B023
        share = sum(stream.coded_bytes for _, stream in streams) / total
    return share, total / coding / 1e6, total / decoding / 1e6


def least_seconds(work: Callable[[], object], times: int) -> float:
    """Return the least processor time of several runs."""
    found = []
    for _ in range(times):
        start = time.thread_time()
        work()
        found.append(time.thread_time() - start)
    return min(found)


def over_entropy(path: Path, packed: Path) -> float:
    """Return coded bytes over the entropy of order 0 of the large weights' codes; NaN without any."""
    coded, entropy = 0, 0.0
    sizes = codec.coded_bytes(packed)
    for tensor in onnx.load(path).graph.initializer:
        if len(tensor.raw_data) < LARGE or tensor.name not in sizes or tensor.data_type not in INTEGERS:
            continue
        codes = np.frombuffer(tensor.raw_data, np.uint8)
        if "int4" in path.name:
            codes = np.concatenate([codes & 15, codes >> 4])
        counts = np.bincount(codes)
        counts = counts[counts > 0]
        entropy += float(-(counts * np.log2(counts / codes.size)).sum() / 8)
        coded += int(sizes[tensor.name])
    return coded / entropy if entropy else float("nan")


INTEGERS = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4)


def loading(path: Path, packed: Path) -> float:
    """Return the median time to a session on the packed file, over that on the ONNX file, both uncached."""
    times: dict[Path, list[float]] = {path: [], packed: []}
    for _ in range(LOADS):
        for each, found in times.items():
            with each.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            found.append(own_process("open", each)["seconds"])
    return statistics.median(times[packed]) / statistics.median(times[path])


def own_process(what: str, path: Path) -> dict[str, float]:
    """Measure one thing in a process of its own."""
    command = [sys.executable, __file__, "--measured", what, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def timed_open(path: Path) -> dict[str, float]:
    """Time a session on an ONNX file or a packed file."""
    from compress.graph.session import session

    onnxruntime.InferenceSession(tiny().SerializeToString())  # its first steps are no part of it
    start = time.perf_counter()
    compress.open(path) if path.suffix == ".packed" else session(path)
    return {"seconds": time.perf_counter() - start}


def tiny() -> onnx.ModelProto:
    """Return a model that adds a number to itself."""
    graph = onnx.parser.parse_graph("g (float x) => (float y) { y = Add(x, x) }")
    opsets = [onnx.helper.make_opsetid("", 21)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def peak_of(work: Callable[[Path], object]) -> Callable[[Path], dict[str, float]]:
    """Return a function that tells the most memory the process had during `work`, and the seconds."""

    def measured(path: Path) -> dict[str, float]:
        start = time.perf_counter()
        work(path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"peak_mb": peak / 1024, "seconds": time.perf_counter() - start}

    return measured


MEASURED = {
    "open": timed_open,
    "pack": peak_of(lambda path: codec.pack(path, path.with_suffix(".packed"))),
    "unpack": peak_of(lambda path: codec.unpack(path.with_suffix(".packed"), path.with_name("again.onnx"))),
}


def memory() -> None:
    """Print the memory that packing and unpacking 2 GB of float32 take."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        path = Path(folder, "model.onnx")
        two_gigabytes(path)
        for what in ("pack", "unpack"):
            found = own_process(what, path)
            print(f"{what}: peak {found['peak_mb']:.0f} MB in {found['seconds']:.0f} s")
        same = path.read_bytes() == path.with_name("again.onnx").read_bytes()
        print(
            f"largest weight 67 MB; packed {path.with_suffix('.packed').stat().st_size / 1e9:.2f} GB; {same=}"
        )


def two_gigabytes(path: Path) -> None:
    """Write a model with 30 weights of 67 MB in external data."""
    rng = np.random.default_rng(0)
    size = 4096 * 4096 * 4
    tensors = []
    with path.with_name("model.onnx.data").open("wb") as file:
        for number in range(30):
            rng.standard_normal((4096, 4096), np.float32).tofile(file)
            tensor = onnx.TensorProto(name=f"w{number}", data_type=1, dims=[4096, 4096], data_location=1)
            where = {"location": "model.onnx.data", "offset": number * size, "length": size}
            for key, value in where.items():
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in range(30)]
    ends = value("x0", 1, ["n", 4096]), value("x30", 1, ["n", 4096])
    graph = onnx.helper.make_graph(nodes, "g", [ends[0]], [ends[1]], tensors)
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title="packed files")
    for column in (
        "model",
        "form",
        "MB",
        "packed",
        "zstd -19",
        "lzma",
        "weights",
        "ZipNN",
        "÷ entropy",
        "code MB/s",
        "decode",
        "load ÷",
    ):
        table.add_column(column, justify="left" if column in ("model", "form") else "right")
    for row in rows:
        best = row.packed <= min(row.zstd_19, row.lzma)
        table.add_row(
            row.model,
            row.form,
            f"{row.bytes / 1e6:.1f}",
            f"[{'green' if best else 'red'}]{row.packed:.4f}",
            f"{row.zstd_19:.4f}",
            f"{row.lzma:.4f}",
            f"{row.weights:.4f}",
            *(f"{each:.4f}" if each == each else "" for each in (row.zipnn, row.over_entropy)),
            f"{row.encode_mb:.0f}",
            f"{row.decode_mb:.0f}",
            f"{row.load:.2f}" if row.load == row.load else "",
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
