"""Profiles by name and by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.errors import HardwareError
from compress.estimator import catalogue


def test_a_profile_stands_for_itself_and_a_name_for_its_profile() -> None:
    profile = catalogue.load("eyeriss-v1")
    assert catalogue.as_profile(profile) is profile
    assert catalogue.as_profile("eyeriss-v1") == profile


def test_a_renamed_profile_differs_in_its_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(catalogue.renamed("eyeriss-v1", "mine"))
    mine = catalogue.load(path)
    assert mine == catalogue.load("eyeriss-v1").model_copy(update={"id": "mine"})
    with pytest.raises(HardwareError, match="exists already"):
        catalogue.renamed("eyeriss-v1", "eyeriss-v1")


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "not valid YAML"), ("- 1", "a profile is a mapping"), ("id: mine", "Field required")],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(HardwareError, match=message):
        catalogue.load(path)
