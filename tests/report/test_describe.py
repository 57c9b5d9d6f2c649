"""A pass in words."""

import pytest
from pydantic import Field

from compress.errors import InputError
from compress.passes import PruneChannels
from compress.passes.base import REGISTRY, Pass
from compress.report import describe


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_setting_of_every_pass_is_described(name: str) -> None:
    for setting in describe.settings(describe.find(name)):
        assert setting.description and setting.allowed, f"{name}: {setting.name}"


def test_own_settings_come_before_those_of_every_pass() -> None:
    names = [setting.name for setting in describe.settings(PruneChannels)]
    assert sorted(names) == sorted(PruneChannels.model_fields)
    assert names[-2:] == ["include", "exclude"]


def test_a_setting_says_its_bounds_and_default() -> None:
    class Small(Pass):
        """Some words
        on two lines.

        ::

            a: 1
        """

        some: tuple[int, ...] = Field(default=(1,), min_length=1)
        """A list
        of numbers."""
        share: float | None = Field(default=None, gt=0, le=1)
        """A share."""

    some, share, *_ = describe.settings(Small)
    assert (some.default, some.allowed) == ("[1]", "list of integer, length at least 1")
    assert some.description == "A list of numbers."
    assert (share.default, share.allowed) == ("null", "number, above 0, at most 1 or null")
    assert describe.paragraphs(Small) == ["Some words on two lines.", "::", "    a: 1"]


def test_an_unknown_pass_is_bad_input() -> None:
    with pytest.raises(InputError, match="unknown pass 'flod'; did you mean 'fold'"):
        describe.find("flod")
