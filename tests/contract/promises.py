"""What every written file keeps of the file that the user brought; each function names what is broken."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from compress.changes import Change
from compress.errors import CompressError
from compress.passes.base import Pass

EXACT_DB = 80
"""Signal-to-noise ratio of outputs that nothing changed but the order of sums."""
ROUNDING_DB = 60
"""Signal-to-noise ratio from which on integers that follow from floats stay as they are."""
HALF_DB = 40
"""Signal-to-noise ratio of a pass that changes nothing, where the model computes in float16."""
LEAST_DB = {
    "fold": EXACT_DB,
    "equalize": ROUNDING_DB,
    "smooth": ROUNDING_DB,
    "float16": 40,
    "float-weights": 40,
    "int8-weights": 25,
    "int8-dynamic": 15,
    "int8-static": 10,
    "int8": 10,
    "correct-bias": 8,
    "int4-weights": 8,
    "integer-weights": 8,
    "palettize": 8,
    "coded-weights": 8,
}
"""Signal-to-noise ratio that a pass leaves at least on random weights. The other passes change what the
network computes, so that only shapes and finite values are promised."""
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
MOVES = {"Concat", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators between a weight and the layer that it belongs to."""
FEW_BYTES = 512
"""Weights of fewer bytes may take more once scales and zero points stand beside them."""
CHANGES_SIZES = {"prune-channels", "drop-blocks", "factorize"}
RAW = re.compile(
    r"\[ONNXRuntimeError\]|\b(StopIteration|(Runtime|Value|Type|Key|Index|Attribute|Assertion|Serde|Convert"
    r"|NotImplemented|Recursion|ZeroDivision)Error)\b"
)
"""Texts of exceptions that are not the product's own."""


def ort_session(path: Path) -> ort.InferenceSession:
    """Return a session as a user opens one, without its warnings."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def refused(path: Path) -> str:
    """Return what ONNX's full check says against a file; empty if nothing."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        return " ".join(str(error).split())[:300]
    return ""


def valid(user: Path, written: Path) -> Iterator[str]:
    """Tell what is wrong with a file, unless the user's has the same fault."""
    fault = refused(written)
    if fault and not refused(user):
        yield f"not valid: {fault}"


def interface(
    user: onnx.ModelProto, written: onnx.ModelProto, chosen: Pass, least_opset: int
) -> Iterator[str]:
    """Tell what changed of inputs, outputs, versions, notes and names.

    The pass, and those before it, need the operator set `least_opset`.
    """
    for kind in ("input", "output"):
        before, after = (_ends(getattr(each.graph, kind)) for each in (user, written))
        if kind == "input" and user.ir_version < 4:
            # Every initializer was an input by rule; only the others are the user's.
            initial = {each.name for each in user.graph.initializer}
            before, after = ([each for each in ends if each[0] not in initial] for ends in (before, after))
        for old, new in zip(before, after, strict=False):
            if not _same_end(old, new):
                yield f"{kind} {old} became {new}"
        if len(before) != len(after):
            yield f"{kind}s {[each[0] for each in before]} became {[each[0] for each in after]}"
    yield from _versions(user, written, least_opset)
    notes = [sorted((each.key, each.value) for each in model.metadata_props) for model in (user, written)]
    if notes[0] != notes[1]:
        yield f"metadata {notes[0]} became {notes[1]}"
    for field in ("doc_string", "model_version", "domain"):
        if getattr(user, field) != getattr(written, field):
            yield f"{field} {getattr(user, field)!r} became {getattr(written, field)!r}"
    yield from _node_names(user.graph, written.graph)
    if chosen.name not in CHANGES_SIZES:
        yield from _value_infos(user.graph, written.graph)


def _ends(values: Any) -> list[tuple[str, str, list[Any] | None]]:
    """Return name, type and sizes of inputs or outputs; a free size is its name, or None without one."""
    ends = []
    for value in values:
        kind = value.type.WhichOneof("value") or ""
        tensor = value.type.tensor_type
        if kind != "tensor_type":
            ends.append((value.name, str(value.type), None))
            continue
        sizes = None
        if tensor.HasField("shape"):
            sizes = [
                dim.dim_param or (dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None)
                for dim in tensor.shape.dim
            ]
        ends.append((value.name, onnx.TensorProto.DataType.Name(tensor.elem_type), sizes))
    return ends


def _same_end(old: Any, new: Any) -> bool:
    return bool(old[:2] == new[:2] and (old[2] is None or old[2] == new[2]))


def _versions(user: onnx.ModelProto, written: onnx.ModelProto, needed: int) -> Iterator[str]:
    before, after = ({each.domain: each.version for each in model.opset_import} for model in (user, written))
    raised = needed > before.get("", 0)
    allowed = {before[""], max(before[""], needed)} if "" in before else {None}
    if after.get("") not in allowed:
        yield f"operator set {before.get('')} became {after.get('')}; the pass needs {needed}"
    for domain, version in before.items():
        if domain and after.get(domain, version) != version:
            yield f"version {version} of {domain} became {after[domain]}"
    # Before version 4, the default of an input and a constant could not be told apart.
    least = max(user.ir_version, 4)
    if written.ir_version not in (user.ir_version, least) and not (raised and written.ir_version > least):
        yield f"IR version {user.ir_version} became {written.ir_version}"


def _node_names(user: onnx.GraphProto, written: onnx.GraphProto) -> Iterator[str]:
    by_output = {name: node for node in written.node for name in node.output if name}
    often = Counter(node.name for node in user.node)
    for node in user.node:
        survivor = by_output.get(next(filter(None, node.output), ""))
        known = node.name and often[node.name] == 1 and survivor and survivor.op_type == node.op_type
        if known and survivor.name != node.name:
            yield f"node {node.name!r} became {survivor.name!r}"


def _value_infos(user: onnx.GraphProto, written: onnx.GraphProto) -> Iterator[str]:
    made = {name for node in written.node for name in node.output}
    said = {each.name: each for each in written.value_info}
    for each in user.value_info:
        if each.name in made and each.name not in said and each.name not in {o.name for o in written.output}:
            yield f"value_info of {each.name!r} is gone"
        elif each.name in said and _ends([each]) != _ends([said[each.name]]):
            yield f"value_info {_ends([each])} became {_ends([said[each.name]])}"


def account(user_bytes: int, written_bytes: int, own: list[Change], chosen: Pass) -> Iterator[str]:
    """Tell where the account of a pass does not fit the file."""
    done = [change for change in own if change.action]
    if not own:
        yield "no record at all"
    yield from (
        f"a record with neither action nor reason: {change}"
        for change in own
        if bool(change.action) == bool(change.skipped)
    )
    if not done and written_bytes != user_bytes:
        yield f"nothing is said to be done, and {user_bytes} bytes of weights became {written_bytes}"
    if chosen.quantizes and done:
        before, after = sum(c.bytes_before for c in done), sum(c.bytes_after for c in done)
        if not 0 < after < before and before > FEW_BYTES:
            yield f"records speak of {before} bytes that became {after}"
        if written_bytes >= user_bytes and before > FEW_BYTES:
            yield f"said to be smaller, and {user_bytes} bytes of weights became {written_bytes}"


def left_silently(user: onnx.ModelProto, written: onnx.ModelProto, own: list[Change]) -> Iterator[str]:
    """Tell which float weights of the user's file are as they were, and no record says why."""
    told = {change.layer for change in own if change.skipped}
    before = {each.name: each for each in user.graph.initializer}
    for weight in written.graph.initializer:
        old = before.get(weight.name)
        is_weight = weight.data_type in FLOATS and np.prod(weight.dims) >= 512
        if old is None or not is_weight or old.raw_data != weight.raw_data:
            continue
        names, values = {weight.name}, {weight.name}
        for node in _nodes(user.graph):
            if values.intersection(node.input):
                names |= {node.name, *node.output}
                values |= set(node.output) if node.op_type in MOVES else set()
        if len(names) > 1 and names.isdisjoint(told):
            yield f"{weight.name} {list(weight.dims)} stays as it was without a record"


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the bodies inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def agreement(
    session: ort.InferenceSession, expected: list[Any], got: list[Any], least: float | None
) -> Iterator[str]:
    """Tell which outputs are not those of the user's file within `least` decibels.

    None promises shapes and finite values alone. From `ROUNDING_DB` on, integers and texts are equal too.
    Outputs whose sizes depend on the data are compared there alone: another row that passes a threshold
    moves all that follow.
    """
    given = {name for value in session.get_inputs() for name in value.shape}
    for value, want, have in zip(session.get_outputs(), expected, got, strict=True):
        sized_by_data = any(isinstance(size, str) and size not in given for size in value.shape)
        if sized_by_data and (least is None or least < ROUNDING_DB) and np.ndim(want) == np.ndim(have):
            continue
        yield from (f"output {value.name}: {fault}" for fault in _difference(want, have, least))


def _difference(want: Any, have: Any, least: float | None) -> Iterator[str]:
    if isinstance(want, list) and want and isinstance(want[0], dict):  # numbers by name for each sample
        want, have = ([list(row.values()) for row in rows] for rows in (want, have))
    elif isinstance(want, list):
        if len(want) != len(have):
            yield f"{len(want)} parts became {len(have)}"
        for one, other in zip(want, have, strict=False):
            yield from _difference(one, other, least)
        return
    want, have = np.asarray(want), np.asarray(have)
    if want.dtype.kind != have.dtype.kind:
        yield f"type {want.dtype} became {have.dtype}"
    elif want.shape != have.shape:
        yield f"shape {want.shape} became {have.shape}"
    elif want.dtype.kind != "f":
        same = float(np.mean(want == have)) if want.size else 1.0
        if least is not None and same < (1 if least >= ROUNDING_DB else 0.5):
            yield f"{same:.0%} of {want.dtype} values are equal"
    else:
        want, have = want.astype(np.float64), have.astype(np.float64)
        if not np.isfinite(have[np.isfinite(want)]).all():
            yield "values that are not finite"
        elif least is not None and (found := snr(want, have)) < least:
            yield f"{found:.1f} dB, where {least} are promised"


def snr(want: np.ndarray, have: np.ndarray) -> float:
    """Return the ratio of signal to noise in decibels; infinite if equal."""
    finite = np.isfinite(want)
    noise = float(((want - have)[finite] ** 2).sum())
    signal = float((want[finite] ** 2).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))


def said_well(error: CompressError) -> Iterator[str]:
    """Tell why a refusal is not in the product's own words."""
    text = str(error)
    if len(text) < 20:
        yield f"refused without a reason: {text!r}"
    elif raw := RAW.search(text):
        yield f"refused with a raw {raw[0]}: {text[:200]}"
