"""ONNX Runtime sessions on a graph or a file, all with the same options."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnxruntime.capi import onnxruntime_pybind11_state as state

from compress.errors import FatalModelError, ModelError, first_line
from compress.graph.files import LARGE, apart, is_large, save, understood
from compress.graph.precision import HALVES, computes_in
from compress.graph.trial import ending

REFUSALS: tuple[type[Exception], ...] = tuple(
    kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
"""The exceptions of ONNX Runtime, which have no common base of their own."""
RUNTIME_ERRORS: tuple[type[Exception], ...] = (ModelError, *REFUSALS, ValueError, RuntimeError, TypeError)
"""What the making of a session and a run may raise."""


class _Session(ort.InferenceSession):  # type: ignore[misc]
    """A session whose runs fail with the toolkit's own error.

    Attributes:
        weights: arrays that it reads, which must live as long.
    """

    weights: Mapping[str, ort.OrtValue]

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> list[Any]:
        """Run the model.

        Raises:
            ModelError: the runtime cannot, be it for the model or for the inputs.
        """
        try:
            results: list[Any] = super().run(output_names, input_feed, run_options)
        except RUNTIME_ERRORS as error:
            raise ModelError(f"ONNX Runtime cannot run the model on these inputs: {_words(error)}") from error
        return results


def _words(error: Exception) -> str:
    """Return the first line of what the runtime says, without its codes."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first_line(error))


def session(
    model: ir.Model | str | os.PathLike[str],
    *,
    threads: int = 0,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    optimize: bool = True,
    optimized_to: str | os.PathLike[str] | None = None,
    profiled_to: str | os.PathLike[str] | None = None,
    plans_memory: bool = True,
    runs: bool = True,
) -> ort.InferenceSession:
    """Return an ONNX Runtime session on a model or a file.

    Args:
        model: the model, or the path of an ONNX file.
        threads: threads of one operator; 0 leaves the choice to the runtime.
        providers: execution providers, most wanted first.
        optimize: whether the runtime may rewrite the graph; without, Q/DQ run one by one in float.
        optimized_to: where to write the graph that the runtime really runs; large weights lie beside it.
        profiled_to: how the name of a file begins in which the runtime notes the time of every kernel.
        plans_memory: whether, from the second run on one shape, one block holds all that is computed; the
            runtime keeps what the first run took beside it, which is much where many values are put out.
        runs: whether the session will run; without, kernels do not lay out the weights for themselves.

    Raises:
        FatalModelError: the runtime ends its process as it loads the model.
        ModelError: it does not take the model.
    """
    options = session_options(threads)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized_to is not None:
        options.optimized_model_filepath = os.fspath(optimized_to)
        beside = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{beside}file_name", f"{Path(optimized_to).name}.weights")
        options.add_session_config_entry(f"{beside}min_size_in_bytes", str(LARGE))
    if profiled_to is not None:
        options.enable_profiling, options.profile_file_prefix = True, os.fspath(profiled_to)
    options.enable_mem_pattern = plans_memory
    if not runs:
        options.add_session_config_entry("session.disable_prepacking", "1")
    risky = _is_risky(model)
    if isinstance(model, ir.Model) and not (risky or is_large(model)):
        proto, weights = apart(model)
        # Values, not copies of them: ONNX Runtime reads the arrays while the session lives.
        values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        options.add_external_initializers(list(values), list(values.values()))
        started = start(proto.SerializeToString(), options, providers)
        started.weights = values
        return started
    with tempfile.TemporaryDirectory() as folder:
        path = save(model, Path(folder, "model.onnx")) if isinstance(model, ir.Model) else model
        ended = ending(path, providers, optimize=optimize) if risky else ""
        if ended:
            raise FatalModelError(
                f"ONNX Runtime ended with {ended} as it loaded the model, which computes in 16-bit floats"
            )
        return start(os.fspath(path), options, providers)


def _is_risky(model: ir.Model | str | os.PathLike[str]) -> bool:
    """Tell whether the runtime may die of a model, as of some that compute in 16-bit floats."""
    if isinstance(model, ir.Model):
        return computes_in(model, HALVES)
    try:
        return computes_in(understood(onnx.load(model, load_external_data=False)), HALVES)
    except (OSError, DecodeError, RuntimeError, ValueError, TypeError, KeyError, AttributeError):
        return False  # the runtime says why


def session_options(threads: int = 0) -> ort.SessionOptions:
    """Return the options of every session here; `threads` of one operator, 0 for the runtime's choice."""
    options = ort.SessionOptions()
    # Errors are raised as well; printed, they reach the terminal of those who try a run that may fail.
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    # Spinning threads steal the core from whatever is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def start(model: str | bytes, options: ort.SessionOptions, providers: Sequence[str]) -> ort.InferenceSession:
    """Return a session on a path or on a serialized model.

    Raises:
        ModelError: the runtime does not take the model.
    """
    try:
        return _Session(model, options, providers=list(providers))
    except REFUSALS as error:
        raise ModelError(f"ONNX Runtime cannot load the model: {_words(error)}") from error
