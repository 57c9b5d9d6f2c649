"""The fastest choice of layers within an amount of noise, against trying all choices."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.changes import Effect
from compress.quantize.placement import CONVERTED, NO_FASTER, TOO_NOISY, Between, Table, seconds_to_part

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
    noise = {"quiet": 1e-5, "noisy": 1e-2, "slow": 1e-9, "between": 1e-9, "deaf": np.inf}
    floats = dict.fromkeys(noise, 0.3)
    integers = floats | {"quiet": 0.1, "noisy": 0.1, "slow": 0.4, "between": 0.25, "deaf": 0.1}
    known = Table(noise, floats, integers, [Between(frozenset({"slow", "between"}), 1e-4, 0.1)])
    chosen = known.fastest(1e-3)
    found = known.effects(chosen)
    assert chosen == {"quiet"} and found["quiet"].in_integers and not found["quiet"].why
    assert [found[name].why for name in ("slow", "between")] == [NO_FASTER, CONVERTED]
    assert found["noisy"].why == found["deaf"].why == TOO_NOISY
    assert found["noisy"].snr_db == pytest.approx(20) and found["deaf"].snr_db is None
    assert found["between"].snr_db == pytest.approx(40, abs=0.1), "what lies around it becomes integers, too"
    assert (found["noisy"].time_in_floats, found["noisy"].time_in_integers) == (0.3, 0.1)
    slower = Table({"a": 1e-2, "b": 1e-2}, {"a": 0.3, "b": 0.3}, {"a": 0.1, "b": 0.31})
    paired = replace(slower, between=[Between(frozenset("ab"), 1e-9, 0.1)])
    assert paired.effects(())["b"].why == NO_FASTER, "though beside a it would be in integers"
    assert Table({"a": 0.0}, {}, {}).effects({"a"}) == {"a": Effect(in_integers=True)}


def test_converting_a_number_takes_about_a_nanosecond() -> None:
    assert 1e-11 < seconds_to_part() < 1e-7
