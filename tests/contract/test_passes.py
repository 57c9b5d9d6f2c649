"""What every pass promises, checked on small models; a new pass is covered by being registered."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

import compress.passes  # noqa: F401  (registers every pass)
from compress.errors import CompressError
from compress.model import Model
from compress.passes.base import REGISTRY, Pass

NAMES = sorted(REGISTRY)
TRAINING = {"finetune", "qat"}
TIMED = {"int8"}
"""Passes that choose by measured speed, which differs from run to run."""
"""Passes that train: minutes on every model, so their own tests show that they keep their promises."""


def content(model: Model) -> bytes:
    return ir.to_proto(model.ir).SerializeToString(deterministic=True)


def resized(model: Model, size: int) -> dict[str, np.ndarray]:
    """Return the first calibration batch with `size` rows along the axis called batch (or N)."""
    feeds = next(model.batches())
    for value in model.graph.inputs:
        axes = [None if isinstance(dim, int) else dim.value for dim in value.shape]
        batch = next(axes.index(name) for name in ("batch", "N") if name in axes)
        feeds[value.name] = np.resize(
            np.moveaxis(feeds[value.name], batch, 0), (size, *np.delete(feeds[value.name].shape, batch))
        )
        feeds[value.name] = np.moveaxis(feeds[value.name], 0, batch)
    return feeds


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> type[Pass]:
    return REGISTRY[request.param]


def recipe_line(kind: type[Pass]) -> Any:
    """Return the example of a pass's docstring, read as YAML."""
    example = re.search(r"Example: ``(.+?)``", kind.__doc__ or "", re.DOTALL)
    assert example, f"{kind.name}: the docstring ends with an example"
    return YAML(typ="safe").load(re.sub(r"\s+", " ", example[1]))


def test_the_docstring_holds_an_example_that_is_a_recipe_line(kind):
    line = recipe_line(kind)
    if isinstance(line, dict) and "variants" in line:
        line = next(iter(line["variants"].values()))[-1]
    name, settings = next(iter(line.items())) if isinstance(line, dict) else (line, {})
    assert name == kind.name
    kind(**(settings or {}))


def test_every_setting_is_documented(kind):
    bare = [name for name, field in kind.model_fields.items() if not field.description]
    assert not bare, f"write a string below the settings {bare} of {kind.__name__}"


def test_settings_are_frozen_and_unknown_ones_refused(kind):
    with pytest.raises(ValidationError, match="frozen"):
        kind().include = ("x",)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        kind(inclde=["x"])


def test_repr_is_a_recipe_line_that_makes_the_same_pass(kind):
    for made in (kind(), kind(include=("a*", "b: c"), exclude=("d, e", "[f]"))):
        line = YAML(typ="safe").load(repr(made))
        name, settings = next(iter(line.items())) if isinstance(line, dict) else (line, {})
        assert REGISTRY[name](**settings).model_dump() == made.model_dump()


@pytest.fixture(params=[name for name in NAMES if name not in TRAINING])
def applied(request, small_model):
    """A pass by name, the model it was applied to, and what came out."""
    kind = REGISTRY[request.param]
    chosen = kind()
    if kind.needs_quantized:
        small_model = REGISTRY["int8-static"]()(small_model)
    before = content(small_model)
    try:
        result = chosen(small_model)
    except CompressError as error:
        assert content(small_model) == before
        pytest.skip(f"{kind.name} refuses: {error}")
    assert content(small_model) == before, "a pass changes its own copy alone"
    return chosen, small_model, result


def test_a_pass_keeps_its_contract(applied, request):
    chosen, model, result = applied
    onnx.checker.check_model(ir.to_proto(result.ir))
    for rows in (1, 3):
        before, after = (each.run(resized(model, rows)) for each in (model, result))
        assert [array.shape for array in after] == [array.shape for array in before]
        assert all(np.isfinite(array).all() for array in after)
    own = result.changes[len(model.changes) :]
    assert own, "apply returns a Change for every layer that it looked at"
    assert {change.by for change in own} == {chosen.name}
    assert all(bool(change.action) != bool(change.skipped) for change in own), "either done, or left and why"
    done = [change for change in own if change.action]
    small = request.node.callspec.params["small_model"]
    assert done or small != "digits", "every pass finds work in a convolutional network"
    if not done:
        assert result.weight_bytes == model.weight_bytes
    for change in done:
        assert change.bytes_before >= 0
        assert change.bytes_after >= 0
        assert change.error is None or 0 <= change.error < 1
    if chosen.quantizes and done:
        assert sum(change.bytes_before for change in done) > sum(change.bytes_after for change in done) > 0
        assert result.weight_bytes < model.weight_bytes


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TRAINING | TIMED])
def test_the_same_pass_gives_the_same_bytes(name, digits):
    chosen = REGISTRY[name]()
    try:
        assert content(chosen(digits)) == content(chosen(digits))
    except CompressError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {*TRAINING, "fold"}])
def test_with_all_layers_excluded_nothing_changes(name, digits):
    try:
        result = REGISTRY[name](exclude=("*",))(digits)
    except CompressError:
        return  # saying that there is nothing to do is an answer too
    assert not any(change.action for change in result.changes), result.changes
    assert result.changes[-1].skipped
    feeds = next(digits.batches())
    np.testing.assert_allclose(result.run(feeds)[0], digits.run(feeds)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["int4-weights", "int8-static", "int8-weights"])
def test_quantization_follows_pruning(name, digits):
    pruned = REGISTRY["prune-channels"](ratio=0.5)(digits)
    small = REGISTRY[name]()(pruned)
    assert small.weight_bytes < pruned.weight_bytes < digits.weight_bytes
    feeds = next(digits.batches())
    before, after = pruned.run(feeds)[0], small.run(feeds)[0]
    assert np.linalg.norm(after - before) < 0.35 * np.linalg.norm(before)
