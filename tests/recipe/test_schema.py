"""The JSON Schema of recipes."""

from collections.abc import Callable
from pathlib import Path

import jsonschema
from ruamel.yaml import YAML

from compress import recipe
from compress.passes.prune_channels import PruneChannels
from compress.recipe import schema

Write = Callable[..., Path]
Complaint = Callable[[Path], str]

FULL = Path(__file__).with_name("full.yaml").read_text(encoding="utf-8")


def test_the_schema_accepts_what_the_loader_accepts(write: Write) -> None:
    recipe.load(write(FULL))
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    plain = YAML(typ="safe").load(FULL)
    validator.validate(plain)
    validator.validate({**plain, "seed": "${env:SEED}", "variants": {"a": [{"fold": None}, "${pass}"]}})
    validator.validate({"extends": "other.yaml"})
    for wrong in ({"sede": 1}, {"seed": "five"}, {"variants": {"a": ["flod"]}}, {"budget": {"file": "3 J"}}):
        assert not validator.is_valid({**plain, **wrong})


def test_the_schema_describes_every_setting() -> None:
    described = schema()
    ratio = described["$defs"]["PruneChannels"]["properties"]["ratio"]
    assert ratio["default"] == PruneChannels().ratio
    assert ratio["description"].startswith("Fraction of the channels")
    assert described["properties"].keys() >= {"extends", "vars", "matrix", "variants", "model", "budget"}
