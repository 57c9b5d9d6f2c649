"""Profiles: reading, messages, what is detected on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compress.errors import HardwareError
from compress.estimator import catalogue, ids, load
from compress.estimator.detection import fill_in
from compress.estimator.hardware import UNCERTAINTY, Number, Quantity


def test_a_profile_of_ones_own_starts_from_a_shipped_one(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(catalogue.text("eyeriss-v1").replace("id: eyeriss-v1", "id: mine"))
    assert load(mine).id == "mine"
    assert load(mine).memories == load("eyeriss-v1").memories


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tag: published", "tag: guessed"), r"tag: Input should be"),
        (("source: jssc2017", "source: nowhere"), r"bad.yaml: [a-z0-9_.]+: no source 'nowhere'"),
        (("overlap: false", "overlap: false\nspeed: 3"), r"speed: Extra inputs"),
        (("int16:", "word:"), r"not a number type"),
        (("value: 0.187", "low: 1, value: 0.187"), r"does not lie between"),
        (("overlap: false", "overlap: ["), r"not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(catalogue.text("eyeriss-v1").replace(*change))
    with pytest.raises(HardwareError, match=message):
        load(path)


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="did you mean 'tpu-v4i'"):
        load("tpu-v4")
    with pytest.raises(HardwareError, match="No such file"):
        load(tmp_path / "none.yaml")


def test_numbers_run_on_the_narrowest_units_that_hold_them() -> None:
    arm, eyeriss = load("cpu-arm"), load("eyeriss-v1")
    assert arm.runs_in(Number("int", 4)) == "int8"
    assert arm.runs_in(Number("float", 16)) == "fp16"
    assert arm.runs_in(Number("int", 16)) == "fp16"
    assert arm.runs_in(Number("float", 64)) == "fp32"
    assert eyeriss.runs_in(Number("int", 8)) == "int16"
    assert eyeriss.runs_in(Number("float", 32)) == "int16"
    assert load("gap9").runs_in(Number("float", 16)) is None
    assert load("gap9").runs_in(Number("int", 16)) is None


def test_uncertainty_follows_the_tag_unless_stated() -> None:
    stated = Quantity(value=2, low=1, high=6, tag="assumed", scope="chip", source="x")
    assert (stated.low_factor, stated.high_factor) == (0.5, 3.0)
    tagged = Quantity(value=2, tag="published", scope="chip", source="x")
    assert (tagged.low_factor, tagged.high_factor) == UNCERTAINTY["published"]


def test_readings_take_the_place_of_stated_values() -> None:
    stated = {"value": 1, "tag": "assumed", "detect": "cores"}
    assert fill_in([stated]) == [{"value": float(os.cpu_count() or 1), "tag": "detected"}]
    scaled = fill_in({**stated, "scale": 0.5})
    assert scaled == {"value": (os.cpu_count() or 1) / 2, "tag": "assumed"}
    assert fill_in({"value": 7, "tag": "assumed", "detect": "l9"}) == {"value": 7, "tag": "assumed"}


def test_the_catalogue_names_at_least_the_promised_hardware() -> None:
    promised = (
        "eyeriss-v1 gap9 ndp9120 stm32u575 stm32l4r5 pynq-z2 tpu-v1 tpu-v4i h200 loihi1 truenorth cpu cpu-arm"
    )
    assert set(promised.split()) <= set(ids())
