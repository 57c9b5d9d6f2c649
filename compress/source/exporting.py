"""torch's ONNX exporter, and the proof that its graph gives the module's results."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.utils import _pytree

from compress.data import BatchAxis, Feeds
from compress.errors import DataError, ModelError, blame, first_line
from compress.graph.normalise import normalise, strip
from compress.graph.session import RUNTIME_ERRORS, session
from compress.source.fidelity import difference
from compress.source.free_axes import Place, batch_axes, free_axes, resized


class Exporting:
    """The way of a torch module to a graph.

    Args:
        module: the module.
        batches: inputs of some calls by name; the first is exported with.
        stated: what the user says of the batch axis.
    """

    def __init__(self, module: torch.nn.Module, batches: Sequence[Feeds], stated: BatchAxis) -> None:
        self.module = module
        self.batches = batches
        self.stated = stated

    def model(self) -> ir.Model:
        """Return the graph with as many open axes as give the module's results.

        Raises:
            ModelError: torch cannot export the module, or not so that the results stay.
        """
        first = self.batches[0]
        try:
            wanted = self._call(first)
        except DataError as error:
            export(self.module, first, {})  # whose message is known to users of torch
            raise ModelError(str(error)) from error
        self.repeats = not difference(wanted, self._call(first), [""] * len(wanted))
        self.samples = batch_axes(self._call, first, self.stated)
        free = free_axes(self._call, self.batches, self.samples)
        batch = {place: size for place, size in free.items() if place in self.samples.inputs.items()}
        varied = {place: size for place, size in free.items() if len(self._sizes(place)) > 1}
        attempts = [free, batch | varied, varied]
        for number, attempt in enumerate(attempts):
            try:
                return self._exported(attempt)
            except ModelError:
                if all(later == attempt for later in attempts[number:]):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _call(self, feeds: Feeds) -> list[np.ndarray]:
        with blame("the module does not run", DataError), torch.no_grad():
            return _arrays(self.module(**_tensors(feeds)))

    def _sizes(self, place: Place) -> set[int]:
        name, axis = place
        return {feeds[name].shape[axis] for feeds in self.batches if feeds[name].ndim > axis}

    def _exported(self, free: dict[Place, int]) -> ir.Model:
        """Return the graph; axes along which it departs from the module are closed and it is made anew."""
        example = self._example(free)
        while True:
            axes: dict[str, dict[int, Any]] = {name: {} for name in example}
            for name, axis in free:
                axes[name][axis] = torch.export.Dim.AUTO
            model = _bare(export(self.module, example, axes))
            wrong = self._departures(model, free) if self.repeats else set()
            if not wrong:
                break
            free = {place: size for place, size in free.items() if place not in wrong}
        self._require_open(model)
        self._name_axes(model)
        return model

    def _example(self, free: dict[Place, int]) -> Feeds:
        """Return the first inputs with two of what is one and may change: one would be broadcast."""
        first = self.batches[0]
        ones = {(name, axis): 2 for name, axis in free if first[name].shape[axis] == 1}
        doubled = resized(first, ones)
        try:
            self._call(doubled)
        except DataError:
            return first
        return doubled

    def _departures(self, model: ir.Model, free: dict[Place, int]) -> set[Place]:
        """Return the open axes at whose other sizes the graph does not give the module's results.

        Raises:
            ModelError: it does not give them on the example or on a calibration batch.
        """
        compare = partial(_compare, model, session(model))
        distinct = {str({name: a.shape for name, a in each.items()}): each for each in self.batches[::-1]}
        for feeds in distinct.values():
            found = compare(feeds, self._call(feeds))
            if found:
                shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
                raise ModelError(f"the exported graph is not the module: for {shapes}, {found}")
        wrong: set[Place] = set()
        for places in self._together(_open_places(model).values()):
            for size in {free[place] for place in places if place in free}:
                feeds = resized(self.batches[0], dict.fromkeys(places, size))
                try:
                    wanted = self._call(feeds)
                except DataError:
                    continue  # the module does not take this size alone
                if compare(feeds, wanted):
                    wrong.update(places)
                else:
                    _open_outputs(model, wanted)
        return wrong

    def _together(self, sizes: Iterable[list[Place]]) -> list[list[Place]]:
        """Return the axes that change at once: those of one size, and the batch axes of all inputs."""
        rest, samples = [], []
        for places in sizes:
            if any(place in self.samples.inputs.items() for place in places):
                samples += places
            else:
                rest.append(places)
        return [*([samples] if samples else []), *rest]

    def _require_open(self, model: ir.Model) -> None:
        """Refuse a graph that fixes a size which differs between the batches."""
        for value in model.graph.inputs:
            for axis, size in enumerate(value.shape or ()):
                sizes = self._sizes((value.name or "", axis))
                if isinstance(size, int) and len(sizes) > 1:
                    raise ModelError(
                        f"torch can export the module only with {size} on axis {axis} of input "
                        f"{value.name!r}, and the batches have {', '.join(map(str, sorted(sizes)))}; "
                        "give batches of one size"
                    )

    def _name_axes(self, model: ir.Model) -> None:
        """Name open sizes by what they are: batch, sequence (of tokens), or input and axis."""
        names: dict[str, str] = {}
        for size, places in _open_places(model).items():
            name, axis = places[0]
            if any(place in self.samples.inputs.items() for place in places):
                called = "batch"
            elif all(map(self._is_tokens, places)) and "sequence" not in names.values():
                called = "sequence"
            else:
                called = f"{name}_{axis}"
            for symbol in re.findall(r"[A-Za-z_]\w*", size):
                names.setdefault(symbol, called)
        for value in (*model.graph.inputs, *model.graph.outputs):
            if value.shape is not None:
                value.shape = ir.Shape([_renamed(size, names) for size in value.shape])

    def _is_tokens(self, place: Place) -> bool:
        """Tell whether an axis is the second one of integers in rows of samples."""
        name, axis = place
        array = self.batches[0][name]
        return (
            array.dtype.kind in "iu" and array.ndim == 2 and axis == 1 and self.samples.inputs.get(name) == 0
        )


def export_program(program: torch.export.ExportedProgram) -> ir.Model:
    """Export a program with the axes that it was made with.

    Raises:
        ModelError: torch cannot export it, or the graph does not give its results on its example.
    """
    model = _bare(export(program, {}, {}))
    if program.example_inputs is not None:
        args, kwargs = program.example_inputs
        with blame("the program does not run on its example", ModelError), torch.no_grad():
            wanted = _arrays(program.module()(*args, **kwargs))
        names = [value.name or "" for value in model.graph.inputs]
        feeds = dict(zip(names, _arrays((args, kwargs)), strict=False))
        found = _compare(model, session(model), feeds, wanted)
        if found:
            raise ModelError(f"the exported graph is not the program: on its example, {found}")
    return model


def _bare(model: ir.Model) -> ir.Model:
    """Normalise what the exporter made, without its notes: a tenth of a small file, with local paths."""
    model = normalise(model)
    strip(model)
    return model


def _tensors(feeds: Feeds) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}


def _arrays(results: Any) -> list[np.ndarray]:
    """Return the tensors in whatever a module returns, in the order in which they are exported."""
    tensors = [each for each in _pytree.tree_leaves(results) if isinstance(each, torch.Tensor)]
    return [
        (each.float() if each.dtype == torch.bfloat16 else each).detach().cpu().numpy() for each in tensors
    ]


def _compare(model: ir.Model, runner: Any, feeds: Feeds, wanted: Sequence[np.ndarray]) -> str:
    """Return in words how the graph's results differ from those wanted; empty if they agree."""
    try:
        got = runner.run(None, {value.name: feeds[value.name] for value in runner.get_inputs()})
    except RUNTIME_ERRORS as error:
        return f"ONNX Runtime does not run it: {first_line(error)}"
    return difference(wanted, got, [value.name or "" for value in model.graph.outputs])


def _open_places(model: ir.Model) -> dict[str, list[Place]]:
    """Return the open axes of the inputs by the name of their size."""
    places: dict[str, list[Place]] = {}
    for value in model.graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:
                places.setdefault(str(size.value), []).append((value.name or "", axis))
    return places


def _open_outputs(model: ir.Model, results: Sequence[np.ndarray]) -> None:
    """Open sizes of outputs that were exported as fixed and turned out to change."""
    for value, array in zip(model.graph.outputs, results, strict=True):
        if value.shape is not None:
            pairs = zip(value.shape, array.shape, strict=True)
            value.shape = ir.Shape([None if isinstance(a, int) and a != b else a for a, b in pairs])


def _renamed(size: int | ir.SymbolicDim, names: dict[str, str]) -> int | str | None:
    if isinstance(size, int) or size.value is None:
        return size if isinstance(size, int) else None
    return re.sub(r"[A-Za-z_]\w*", lambda found: names.get(found[0], found[0]), str(size.value))


def export(
    module: torch.nn.Module | torch.export.ExportedProgram,
    feeds: Feeds,
    axes: dict[str, dict[int, Any]],
) -> ir.Model:
    """Return the graph that torch's exporter makes of a module called with `feeds`.

    Args:
        module: the module or program.
        feeds: inputs by name; empty for a program.
        axes: the axes that may change in size, by input.

    Raises:
        ModelError: torch cannot export the module.
    """
    inputs = {name: torch.from_numpy(array) for name, array in feeds.items()}
    with quiet():
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
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise ModelError(f"torch cannot export the module: {first_line(cause)}") from error
    assert program is not None  # with dynamo=True a program is always returned
    return program.model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress and the registration notes of an exporter off the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
