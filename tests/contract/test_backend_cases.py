"""ONNX's own tests as models: compressed and written, they give the numbers that ONNX Runtime gave before."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import promises
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

import compress
import compress.passes
from compress.changes import Change
from compress.errors import CompressError
from compress.graph.session import RUNTIME_ERRORS
from compress.passes.base import REGISTRY

PASSES = ("fold", "float16", "int8-dynamic", "int8-static", "int8-weights", "int4-weights")
EVERY_SO_MANY = 9
"""Of so many models of the package, each run of the tests takes one."""
_OLD_SCAN = "ONNX's converter leaves a Scan of operator set 8, which had a batch axis of its own: refused"
KNOWN: dict[str, dict[str, str]] = {
    name: {"test_scan_sum": _OLD_SCAN, "test_scan_sum_with_weights": _OLD_SCAN}
    for name in ("int8-dynamic", "int8-static", "int8-weights", "int4-weights")
}
"""Models that break a promise, by pass, with the reason."""


class Brought:
    """A model as its user has it, feeds, and what ONNX Runtime makes of them.

    Raises one of `RUNTIME_ERRORS` where the runtime does not run it.
    """

    def __init__(self, name: str, proto: onnx.ModelProto, feeds: dict[str, Any], folder: Path) -> None:
        self.name, self.proto, self.feeds, self.folder = name, proto, feeds, folder
        self.path = folder / f"{name}.onnx"
        onnx.save(proto, self.path)
        self.session = promises.ort_session(self.path)
        self.expected = self.session.run(None, feeds)
        again = self.session.run(None, feeds)
        self.draws = bool(list(promises.agreement(self.session, self.expected, again, promises.EXACT_DB)))
        """Whether the model draws random numbers, so that two runs differ."""

    def broken(self, name: str) -> list[str]:
        """Return every promise that the pass of that name breaks on the model."""
        # Tests of infinities and NaN hold what calibration data may not.
        model = compress.load(self.path, calibration=[self.feeds] if _is_finite(self.feeds) else None)
        result = REGISTRY[name]()(model)
        written = result.save(self.folder / "written.onnx")
        own: list[Change] = list(result.changes)
        done = any(change.action for change in own)
        least = None if self.draws else promises.LEAST_DB[name] if done else promises.EXACT_DB
        return [
            *promises.valid(self.path, written),
            *promises.account(model.weight_bytes, result.weight_bytes, own, REGISTRY[name]()),
            *promises.agreement(
                self.session, self.expected, promises.ort_session(written).run(None, self.feeds), least
            ),
        ]


def _is_finite(feeds: dict[str, Any]) -> bool:
    arrays = [np.asarray(each) for each in feeds.values() if isinstance(each, np.ndarray)]
    return all(each.dtype.kind != "f" or np.isfinite(each).all() for each in arrays)


def _value(path: Path, kind: onnx.TypeProto) -> Any:
    """Return the value of an input that a file of the package holds."""
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def _packaged() -> Iterator[tuple[str, onnx.ModelProto, dict[str, Any]]]:
    """Yield name, model and feeds of the small models that the package holds as files, opsets 6 to 12."""
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for case in sorted(load_model_tests(kind=kind), key=lambda each: each.name):
            folder = Path(case.model_dir or "")
            proto = onnx.load(folder / "model.onnx")
            initial = {each.name for each in proto.graph.initializer}
            inputs = [each for each in proto.graph.input if each.name not in initial]
            feeds = {
                each.name: _value(folder / "test_data_set_0" / f"input_{number}.pb", each.type)
                for number, each in enumerate(inputs)
            }
            yield case.name, proto, feeds


def _nodes() -> Iterator[tuple[str, onnx.ModelProto, dict[str, Any]]]:
    """Yield the tests of single operators."""
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        yield (
            case.name,
            case.model,
            dict(zip((each.name for each in case.model.graph.input), case.data_sets[0][0], strict=False)),
        )


def _fed_and_stored(case: Any) -> Iterator[Any]:
    """Yield the test of an operator as it is, and with every input but the first as a weight."""
    name, proto, feeds = case
    yield case
    first, *others = feeds or [""]
    if not others or not all(isinstance(feeds[each], np.ndarray) for each in others):
        return
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    kept = [each for each in proto.graph.input if each.name not in others]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.graph.initializer.extend(numpy_helper.from_array(feeds[each], each) for each in others)
    yield f"{name}_with_weights", proto, {first: feeds[first]}


def _faults(
    source: Iterator[tuple[str, onnx.ModelProto, dict[str, Any]]], name: str, folder: Path
) -> dict[str, list[str]]:
    """Return the broken promises of a pass, by model; what ONNX Runtime itself does not run is left out.

    Raises:
        AssertionError: the runtime ran none of the models.
    """
    faults, ran = {}, 0
    for each in source:
        try:
            user = Brought(*each, folder)
        except RUNTIME_ERRORS:
            continue
        ran += 1
        try:
            broken = user.broken(name)
        except CompressError as error:
            broken = [f"refused: {error}"]
        except RUNTIME_ERRORS as error:
            broken = [f"{type(error).__name__}: {error}"]
        if broken:
            faults[user.name] = broken
    assert ran
    return faults


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["fold", "int8-weights"])
def test_some_old_models_keep_their_numbers(name, tmp_path):
    assert _faults(itertools.islice(_packaged(), 4, None, EVERY_SO_MANY), name, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PASSES)
def test_old_models_keep_their_numbers(name, tmp_path):
    assert _faults(_packaged(), name, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PASSES)
def test_operators_keep_their_numbers(name, tmp_path):
    faults = _faults(itertools.chain.from_iterable(map(_fed_and_stored, _nodes())), name, tmp_path)
    assert faults.keys() == KNOWN.get(name, {}).keys(), faults
