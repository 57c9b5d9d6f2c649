"""The fastest choice of layers within an amount of noise, against trying all choices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.changes import Effect
from compress.quantize.placement import NO_TIME_WON, TOO_NOISY, Between, Table, seconds_to_part

LAYERS = ["a", "b", "c", "d", "e"]


def table(seed: int) -> Table:
    """Return a chain of layers with times and noise of all sizes."""
    rng = np.random.default_rng(seed)
    noise = dict(zip(LAYERS, 10 ** rng.uniform(-6, -1, 5), strict=True))
    floats, integers = (dict(zip(LAYERS, rng.uniform(0.05, 0.4, 5), strict=True)) for _ in range(2))
    pairs = [frozenset(pair) for pair in itertools.pairwise(LAYERS)]
    between = [Between(pair, 10 ** rng.uniform(-6, -1), rng.uniform(0, 0.2)) for pair in pairs]
    return Table(noise, floats, integers, [*between, Between(frozenset("ace"), 1e-3, 0.05)])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), allowed=st.sampled_from([1e-4, 1e-2, 0.1, np.inf]))
def test_no_choice_is_faster(seed: int, allowed: float) -> None:
    known = table(seed)
    found = known.fastest(allowed)
    assert known.added(found) <= allowed * (1 + 1e-6)
    choices = (set(each) for count in range(6) for each in itertools.combinations(LAYERS, count))
    best = min(known.time(each) for each in choices if known.added(each) <= allowed)
    assert known.time(found) <= best * 1.01


def test_layers_beside_each_other_go_together_where_parting_costs() -> None:
    noise, floats, integers = dict.fromkeys("ab", 1e-4), {"a": 0.5, "b": 0.5}, {"a": 0.2, "b": 0.6}
    apart = Table(noise, floats, integers, [Between(frozenset("ab"), 0.0, 0.0)])
    assert apart.fastest(1) == {"a"}
    joined = Table(noise, floats, integers, [Between(frozenset("ab"), 0.0, 0.2)])
    assert joined.fastest(1) == {"a", "b"}
    assert joined.time({"a", "b"}) == pytest.approx(0.8) and joined.time({"a"}) == pytest.approx(0.9)


def test_nothing_runs_in_integers_where_nothing_may_be_lost() -> None:
    assert table(0).fastest(0) == Table({}, {}, {}).fastest(1) == frozenset()


def test_a_layer_in_float_says_whether_time_or_noise_kept_it_there() -> None:
    floats, integers = dict.fromkeys("abc", 0.3), {"a": 0.1, "b": 0.1, "c": 0.25}
    known = Table({"a": 1e-5, "b": 1e-2, "c": 0.0}, floats, integers, [Between(frozenset("ac"), 0.0, 0.1)])
    quiet, noisy, slow = (known.effect(name, {"a"} - {"c"}) for name in "abc")
    assert (quiet.in_integers, quiet.why, noisy.why) == (True, "", TOO_NOISY)
    assert noisy.snr_db == pytest.approx(20) and slow.snr_db is None
    assert (noisy.time_in_floats, noisy.time_in_integers) == (0.3, 0.1)
    alone = Table({"a": 0.0, "c": 0.0}, floats, integers, [Between(frozenset("ac"), 0.0, 0.1)])
    assert alone.effect("c", ()).why == NO_TIME_WON, "it would win less than converting costs"
    assert Table({"a": 0.0}, {}, {}).effect("a", {"a"}) == Effect(in_integers=True)


def test_converting_a_number_takes_about_a_nanosecond() -> None:
    assert 1e-11 < seconds_to_part() < 1e-7
