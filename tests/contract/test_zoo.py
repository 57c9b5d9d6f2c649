"""Every pass on every model of the zoo: what it writes is the user's model, and valid, and accounted for."""

from __future__ import annotations

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

import onnx
import promises
import pytest
from contract_zoo import CASES

import compress
import compress.passes
from compress.errors import CompressError
from compress.model import Model
from compress.passes.base import REGISTRY, Pass

FAST = {"fold", "int8-static", "int8-weights"}
"""Passes that every run of the tests applies; the others are slow together."""
TRAINING = {"finetune", "qat"}
MAY_REFUSE = {"drop-blocks", "per-layer", "prune-channels", *TRAINING}
"""Passes that work on the whole graph at once, and say so where they cannot; the others leave a layer."""
EVERY = tuple(sorted(REGISTRY))
KNOWN: dict[str, tuple[Collection[str], str]] = {
    "group_normalization_of_opset_18": (
        ["coded-weights", "int4-weights", "integer-weights", "palettize"],
        "ONNX's converter to set 21 writes a graph that does not run; refused with that reason",
    ),
}
"""Promises that are not kept yet, by model and passes; one that is kept again must leave the list."""


def _products() -> list[Any]:
    """Return every model with every pass, marked where it is slow or known to fail."""
    known = {(case, name): reason for case, (names, reason) in KNOWN.items() for name in names}
    return [
        pytest.param(
            case,
            name,
            id=f"{name}-{case}",
            marks=[
                *([] if name in FAST else [pytest.mark.slow]),
                *(
                    [pytest.mark.xfail(strict=True, reason=known[case, name])]
                    if (case, name) in known
                    else []
                ),
            ],
        )
        for case in CASES
        for name in EVERY
    ]


class Kept:
    """One model of the zoo as its user has it, and what ONNX Runtime makes of that."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self.feeds = CASES[name].batches()
        self.path = CASES[name].write(folder)
        self.proto = onnx.load(self.path, load_external_data=False)
        self.session = promises.ort_session(self.path)
        self.expected = [self.session.run(None, feeds) for feeds in self.feeds[:2]]
        halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
        self.half = any(each.data_type in halves for each in self.proto.graph.initializer)

    @functools.cached_property
    def loaded(self) -> Model:
        """The model as `compress` reads it."""
        return compress.load(self.path, calibration=self.feeds)


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function from a model's name to what is known of it, built once."""
    return functools.cache(lambda name: Kept(name, tmp_path_factory.mktemp(name)))


def _settings(kind: type[Pass]) -> Pass:
    return kind(epochs=1) if kind.name in TRAINING else kind()


def _broken(user: Kept, chosen: Pass, folder: Path) -> list[str]:
    """Return every promise that a pass breaks on a model."""
    model = user.loaded
    if chosen.needs_quantized:
        model = REGISTRY["int8-static"]()(model)
    try:
        result = chosen(model)
    except CompressError as error:
        faults = list(promises.said_well(error))
        return faults if chosen.name in MAY_REFUSE else [*faults, f"refused: {error}"]
    written = result.save(folder / "written.onnx")
    own = list(result.changes[len(model.changes) :])
    done = any(change.action for change in own) or chosen.needs_quantized
    least = promises.LEAST_DB.get(chosen.name) if done else promises.EXACT_DB
    if user.half and least is not None:
        least = min(least, promises.HALF_DB)
    session = promises.ort_session(written)
    faults = [
        *promises.valid(user.path, written),
        *promises.interface(
            user.proto,
            onnx.load(written, load_external_data=False),
            chosen,
            max(model.opset, chosen.least_opset()),
        ),
        *(promises.left_silently(user.proto, onnx.load(written), own) if chosen.accounts else []),
        *promises.account(model.weight_bytes, result.weight_bytes, own, chosen),
    ]
    for feeds, expected in zip(user.feeds, user.expected, strict=False):
        faults += promises.agreement(user.session, expected, session.run(None, feeds), least)
    return faults


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("case", "name"), _products())
def test_a_pass_keeps_its_promises(case, name, kept, tmp_path):
    assert _broken(kept(case), _settings(REGISTRY[name]), tmp_path) == []


def test_the_list_of_known_failures_names_models_and_passes():
    assert KNOWN.keys() <= CASES.keys()
    assert {name for names, _ in KNOWN.values() for name in names} <= REGISTRY.keys()
