"""The door: a torch module, an ONNX file, a Hugging Face folder or a function becomes a `Model`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.data import Data, Source, as_array
from compress.errors import InputError, ModelError, TrustError, blame, did_you_mean

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    import torch

    from compress.model import Model

BATCHES_LOOKED_AT = 8
"""Calibration batches compared to find which axes change in size."""


def load(
    source: Any,
    *,
    calibration: Source | Data | None = None,
    evaluation: Source | Data | None = None,
    example_inputs: Any = None,
    trust: bool = False,
    home: str | os.PathLike[str] = ".",
) -> Model:
    """Bring a model in.

    Args:
        source: a ``torch.nn.Module``, an ``onnx.ModelProto``, an ``onnx_ir.Model``, a `Model`, or a path:
            an ``.onnx`` file, a ``.pt2`` file, a Hugging Face folder (config.json and safetensors), or
            ``file.py:function`` whose function returns any of these.
        calibration: batches that passes may read: a list, or a function that returns an iterator.
        evaluation: batches that only scores read.
        example_inputs: inputs to export a torch module with, by name or in order; the first
            calibration batch if left out.
        trust: whether code that comes with the model may run (``.pt2``, functions outside `home`).
        home: the folder whose Python files the user already runs, such as the recipe's.

    Raises:
        ModelError: the model cannot be read, is not valid, or cannot be exported.
        TrustError: reading it would run code that was not trusted.
        DataError: the data cannot be read more than once.
    """
    from compress.model import Model

    calibration = _data(calibration, "calibration")
    evaluation = _data(evaluation, "evaluation")
    graph = _enter(source, _Examples(example_inputs, calibration), trust=trust, home=Path(home))
    return Model(graph, calibration=calibration, evaluation=evaluation)


def call(reference: str, *, home: Path, trust: bool) -> Any:
    """Return the function that ``file.py:function`` names; the path is relative to `home`.

    Raises:
        InputError: there is no such file or function, or the file fails as it is imported.
        TrustError: the file lies outside `home` and `trust` is not given.
    """
    file_name, _, function_name = reference.rpartition(":")
    path = (home / file_name).resolve()
    if not path.is_file():
        raise InputError(f"{path}: no such file (named by {reference!r})")
    if not trust and not path.is_relative_to(home.resolve()):
        raise TrustError(
            f"{path}: running it needs your trust, since it is not beside the recipe; add --trust"
        )
    module = _import_file(path, path.stat().st_mtime_ns)
    if not hasattr(module, function_name):
        known = [
            name
            for name, each in vars(module).items()
            if callable(each) and getattr(each, "__module__", "") == module.__name__
        ]
        raise InputError(f"{path}: has no function {function_name!r}{did_you_mean(function_name, known)}")
    return getattr(module, function_name)


@cache
def _import_file(path: Path, modified_ns: int) -> Any:
    """Import a Python file, once for each time it was modified."""
    name = f"compress_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        with blame(f"{path}: cannot be imported", InputError):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def _data(source: Source | Data | None, kind: str) -> Data | None:
    return source if source is None or isinstance(source, Data) else Data(source, kind)


def _enter(source: Any, examples: _Examples, *, trust: bool, home: Path) -> ir.Model:
    import onnx_ir as ir

    from compress.graph.normalise import normalise
    from compress.model import Model

    if isinstance(source, Model):
        return source.ir.clone()
    if isinstance(source, ir.Model):
        return normalise(source.clone())
    if type(source).__module__.startswith("onnx.") and hasattr(source, "SerializeToString"):
        return normalise(ir.from_proto(_checked_proto(source)))
    if isinstance(source, str | os.PathLike):
        return _enter_path(os.fspath(source), examples, trust=trust, home=home)
    import torch

    if isinstance(source, torch.nn.Module | torch.export.ExportedProgram):
        return from_torch(source, examples)
    raise ModelError(
        f"a {type(source).__name__} is no model; give a torch.nn.Module, an ONNX model or a path to one"
    )


def _enter_path(reference: str, examples: _Examples, *, trust: bool, home: Path) -> ir.Model:
    if ".py:" in reference:
        function = call(reference, home=home, trust=trust)
        with blame(reference, ModelError):
            made = function()
        return _enter(made, examples, trust=trust, home=home)
    path = locate(reference, home)
    if path.is_dir():
        return from_hugging_face(path, examples, trust=trust)
    if path.suffix == ".pt2":
        if not trust:
            raise TrustError(f"{path}: loading a .pt2 file can run code in it; add --trust if you trust it")
        import torch

        with _quiet(), blame(f"{path}: cannot be read", ModelError):
            program = torch.export.load(path)
        return from_torch(program, examples)
    return read_onnx(path)


def locate(reference: str, home: Path) -> Path:
    """Return the path a model reference means: relative to `home`, or ``package:NAME/inner/path``.

    The package is found, not imported.

    Raises:
        ModelError: there is no such file, folder or package.
    """
    if reference.startswith("package:"):
        name, _, inner = reference.removeprefix("package:").partition("/")
        # Finding an inner package would import the outer one, and run its code.
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(f"{reference}: no package {name!r} is installed in this environment")
        folder = Path(next(iter(spec.submodule_search_locations)))
        path = folder / inner
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"{reference}: lies outside the package")
    else:
        path = home / Path(reference).expanduser()
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder")
    return path


def read_onnx(path: Path) -> ir.Model:
    """Read an ONNX file, checked before anything else looks at it.

    Raises:
        ModelError: the file is empty, truncated or not valid ONNX, or its external data are
            missing, too short or outside the file's folder.
    """
    import onnx
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    from compress.graph.files import is_large
    from compress.graph.normalise import normalise

    try:
        proto = onnx.load(path, load_external_data=False)
        if not proto.graph.node and not proto.graph.output:
            raise ModelError(f"{path}: holds no graph; the file is empty or cut short")
        _check_external_data(path, proto)
        onnx.checker.check_model(os.fspath(path))
    except DecodeError as error:
        raise ModelError(f"{path}: is not an ONNX file, or is cut short") from error
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path}: is not valid ONNX: {str(error).strip().splitlines()[0]}") from error
    model = ir.load(path)
    if not is_large(model):
        model = ir.external_data.load_to_model(model)
    return normalise(model)


def _checked_proto(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the model is not valid ONNX: {str(error).strip().splitlines()[0]}") from error
    return proto


def _check_external_data(path: Path, proto: onnx.ModelProto) -> None:
    import onnx.external_data_helper as external
    import onnx_ir as ir

    folder = path.parent.resolve()
    for tensor in external._get_all_tensors(proto):
        if not external.uses_external_data(tensor):
            continue
        fields = {entry.key: entry.value for entry in tensor.external_data}
        if not all(fields.get(key, "0").isdecimal() for key in ("offset", "length")):
            raise ModelError(f"{path}: external data of {tensor.name!r}: offset and length must be numbers")
        info = external.ExternalDataInfo(tensor)
        file = (folder / info.location).resolve()
        if not file.is_relative_to(folder):
            raise ModelError(
                f"{path}: external data of {tensor.name!r} lie outside the model's folder: {info.location}"
            )
        if not file.is_file():
            raise ModelError(f"{path}: external data of {tensor.name!r} are missing: {file}")
        needed = -(-math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth // 8)
        if min(file.stat().st_size - (info.offset or 0), info.length or needed) < needed:
            raise ModelError(f"{path}: external data of {tensor.name!r} are cut short: {file}")


class _Examples:
    """Inputs to export with: given ones, or those of the first calibration batches."""

    def __init__(self, given: Any, calibration: Data | None) -> None:
        self.given = given
        self.calibration = calibration

    def __bool__(self) -> bool:
        return self.given is not None or self.calibration is not None

    def by_name(self, names: list[str]) -> list[dict[str, np.ndarray]]:
        """Return up to `BATCHES_LOOKED_AT` examples; unnamed inputs get the leading `names`."""
        if self.given is not None:
            raw = [self.given]
        elif self.calibration is not None:
            raw = [inputs for inputs, _ in itertools.islice(self.calibration.raw(), BATCHES_LOOKED_AT)]
        else:
            raw = []
        if not raw:
            raise ModelError("exporting a torch module needs example inputs or calibration data")
        return [_by_name(inputs, names) for inputs in raw]


def _by_name(inputs: Any, names: list[str]) -> dict[str, np.ndarray]:
    if isinstance(inputs, Mapping):
        arrays = {name: as_array(value) for name, value in inputs.items()}
        for name, array in arrays.items():
            if array.dtype.kind not in "biuf":
                raise ModelError(f"example input {name!r}: a {type(inputs[name]).__name__} is no array")
        return arrays
    ordered = inputs if isinstance(inputs, tuple | list) else (inputs,)
    if len(ordered) > len(names):
        raise ModelError(f"{len(ordered)} example inputs for a module that takes {len(names)}: {names}")
    return _by_name(dict(zip(names, ordered, strict=False)), names)


def _dynamic_axes(examples: list[dict[str, np.ndarray]]) -> dict[str, dict[int, str]]:
    """Name the axes that may change: the batch, tokens of integer inputs, what differs between batches."""
    axes: dict[str, dict[int, str]] = {}
    for name, first in examples[0].items():
        axes[name] = {0: "batch"} if first.ndim else {}
        if first.dtype.kind in "iu" and first.ndim == 2:
            axes[name][1] = "sequence"
        for axis in range(1, first.ndim):
            if len({example[name].shape[axis] for example in examples}) > 1:
                axes[name].setdefault(axis, f"{name}_{axis}")
    return axes


def from_torch(module: torch.nn.Module | torch.export.ExportedProgram, examples: _Examples) -> ir.Model:
    """Export a torch module to a graph with parameter names kept.

    The batch axis is dynamic, the second axis of integer inputs (tokens) is, and so is every axis
    whose size differs between calibration batches.

    Raises:
        ModelError: torch cannot export the module; the message ends with torch's own.
    """
    import torch

    from compress.graph.normalise import normalise

    if isinstance(module, torch.export.ExportedProgram):
        return normalise(_export(module, {}, {}))
    names = [name for name in _forward_names(module) if name not in ("args", "kwargs")]
    batches = examples.by_name(names)
    axes = _dynamic_axes(batches)
    # torch.export takes a size of one for a constant: show it two of everything that may change.
    inputs = {
        name: torch.from_numpy(np.repeat(array, 2, axis=0) if array.ndim and len(array) == 1 else array)
        for name, array in batches[0].items()
    }
    return normalise(_export(module.eval().cpu(), inputs, axes))


def _forward_names(module: torch.nn.Module) -> list[str]:
    import inspect

    return list(inspect.signature(module.forward).parameters)


def _export(
    module: torch.nn.Module | torch.export.ExportedProgram,
    inputs: dict[str, torch.Tensor],
    axes: dict[str, dict[int, str]],
) -> ir.Model:
    import torch

    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                kwargs=inputs,
                dynamic_shapes=axes or None,
                dynamo=True,
                optimize=False,
                opset_version=21,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = error.__cause__ or error
            raise ModelError(
                f"torch cannot export the module: {str(cause).strip().splitlines()[0]}"
            ) from error
    assert program is not None  # with dynamo=True a program is always returned
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and registration notes off the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def from_hugging_face(folder: Path, examples: _Examples, *, trust: bool = False) -> ir.Model:
    """Export the model of a Hugging Face folder; its first output (hidden state or logits) is kept.

    Raises:
        ModelError: the folder has no config.json or safetensors weights, or names an unknown architecture.
        TrustError: the model's code is in the folder and `trust` is not given.
    """
    config = _hugging_face_config(folder, trust)
    import torch
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    with _quiet():
        try:
            import transformers
        except ImportError as error:
            raise ModelError(f"{folder}: needs the 'hf' extra: pip install 'compress-toolkit[hf]'") from error

        transformers.utils.logging.disable_progress_bar()
        architecture = (config.get("architectures") or ["AutoModel"])[0]
        kind = getattr(transformers, architecture, transformers.AutoModel)
        with blame(f"{folder}: transformers cannot load it", ModelError):
            module = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=trust,
                attn_implementation="eager",
                dtype=torch.float32,
            ).eval()
    module.config.use_cache = False
    model = from_torch(module, examples if examples else _Examples(_tokens(module), None))
    first = model.graph.outputs[0]
    del model.graph.outputs[1:]
    first.name = "logits" if architecture.split("For")[-1] != architecture else "last_hidden_state"
    return RemoveUnusedNodesPass()(model).model


def _hugging_face_config(folder: Path, trust: bool) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: a model folder needs a config.json") from error
    except json.JSONDecodeError as error:
        raise ModelError(f"{folder}/config.json:{error.lineno}:{error.colno}: {error.msg}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder}/config.json: holds no mapping of settings")
    if "auto_map" in config and not trust:
        raise TrustError(f"{folder}: the model brings its own code; add --trust if you trust it")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder}: has no .safetensors weights; other formats can run code and are not read"
        )
    return config


def _tokens(module: Any) -> dict[str, np.ndarray]:
    known = _forward_names(module)
    names = [name for name in ("input_ids", "attention_mask") if name in known]
    if not names:
        raise ModelError(f"{type(module).__name__}: give calibration data, its inputs are not tokens")
    return {name: np.ones((2, 16), np.int64) for name in names}
