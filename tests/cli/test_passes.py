"""The command on passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compress.passes.base import REGISTRY
from compress.passes.prune_channels import PruneChannels

Call = Callable[..., Any]


def test_passes_are_listed(call: Call) -> None:
    listed = call("passes").out
    assert all(f"\n{name} " in listed for name in REGISTRY)


def test_a_pass_is_explained_by_its_definition(call: Call) -> None:
    shown = call("passes", "prune-channels").out
    assert " ".join((PruneChannels.__doc__ or "").split()[:20]) in " ".join(shown.split())
    assert "ratio" in shown and "0.3" in shown and "number, above 0, below 1" in shown
    assert "Fraction of the channels that is removed" in shown


def test_an_unknown_pass_or_profile_is_bad_input(call: Call) -> None:
    assert call("passes", "prune-chanels")[::2] == (
        2,
        "error: unknown pass 'prune-chanels'; did you mean 'prune-channels'?\n",
    )
    assert call("hardware", "eyeris-v1")[::2] == (
        2,
        "error: unknown hardware 'eyeris-v1'; did you mean 'eyeriss-v1'?\n",
    )
