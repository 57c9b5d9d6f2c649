"""Names and files of hardware profiles."""

from pathlib import Path

from compress.estimator import ids, load
from compress.estimator.files import profile_id, profile_path


def test_a_profile_of_the_package_is_called_by_its_file() -> None:
    assert "eyeriss-v1" in ids()
    assert profile_id("eyeriss-v1") == load("eyeriss-v1").id == profile_path("eyeriss-v1").stem
    assert all(profile_path(name).is_file() for name in ids())


def test_a_users_file_is_itself() -> None:
    assert profile_id("boards/mine.yaml") == "mine"
    assert profile_path("boards/mine.yaml") == Path("boards/mine.yaml")
