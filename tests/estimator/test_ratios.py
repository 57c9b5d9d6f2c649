"""Ratios against measured ones; the benchmark prints the same rows, and the README what they come to."""

from __future__ import annotations

import math
from pathlib import Path

import cpu_pairs
import ground_truth as truth
import numpy as np
import pytest
import ratios
import rows
from rows import Row

from compress.estimator import Cost, load
from compress.estimator.uncertainty import Drawn, standard

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def off_by(log_error: float, name: str = "row") -> Row:
    """A row whose model alone is unsure."""
    drawn = Drawn(np.ones(len(standard(name))), standard(name))
    return Row(name, 1.0, math.exp(log_error), "J", cost=Cost({"compute": 1.0}, drawn=drawn))


def test_a_row_needs_the_error_that_it_has() -> None:
    assert rows.needed(off_by(0.0)) == 0
    assert rows.needed(off_by(0.329)) == pytest.approx(0.2, abs=0.01)
    assert rows.needed(off_by(-0.329)) == pytest.approx(0.2, abs=0.01)


def test_a_row_says_nothing_of_its_own_interval() -> None:
    near = [off_by(0.01 * step) for step in range(1, 20)]
    held = rows.inside([*near, off_by(1.0)])
    assert not held[-1]
    assert 0.85 <= np.mean(held) <= 0.95


def test_a_ratio_is_as_unsure_as_what_differs() -> None:
    one, other = (off_by(0.0, name).cost for name in ("one", "other"))
    low, high = Row("", 1.0, 1.0, "", cost=one, beside=other).interval(0.1)
    assert math.log(high / low) == pytest.approx(2 * 1.645 * 0.1 * math.sqrt(2), rel=0.1)
    assert Row("", 1.0, 1.0, "", cost=one, beside=one).interval(0.1) == (1, 1)


def test_ratios_of_number_types_and_zeros() -> None:
    for ratio in (*ratios.cortex_m4(), *ratios.eyeriss_zeros()):
        assert ratio.separated and ratio.sign_right
        assert abs(ratio.row.error) < 0.2


def test_at_least_forty_pairs_were_timed_on_a_named_machine() -> None:
    machine, pairs = cpu_pairs.kept()
    assert machine
    assert len(pairs) >= 40 and len({pair.network for pair in pairs}) >= 5
    for pair in pairs:
        assert abs(math.log(pair.ratios[0] / pair.ratios[1])) < 0.3


@pytest.mark.parametrize("network", ["digits", "resnet20"])
def test_times_of_pairs_follow_from_their_graphs(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, pairs = cpu_pairs.kept()
    own = [pair for pair in pairs if pair.network == network]
    monkeypatch.setattr(cpu_pairs, "kept", lambda: (machine, own))
    errors = [abs(ratios._pair(pair, 0.05).error) for pair in own]
    assert np.median(errors) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("title", ratios.SECTIONS)
def test_the_readme_has_what_the_benchmark_prints(title: str) -> None:
    assert ratios.HEADER in README
    assert ratios.summary(title, ratios.SECTIONS[title]()) in README


@pytest.mark.slow
def test_nine_of_ten_unseen_rows_lie_inside_their_interval() -> None:
    every: list[bool] = []
    for name, titles in truth.CLASSES.items():
        unseen = truth.unseen(row for title in titles for row in truth.CHECKS[title]())
        held = rows.inside(unseen)
        every += held
        assert 0.85 <= np.mean(held) <= 0.95, name
        for hardware in truth.SHIPPED[name]:
            assert load(hardware).log_sd == pytest.approx(rows.log_sd(unseen), abs=0.01), hardware
    assert 0.85 <= np.mean(every) <= 0.95


@pytest.mark.slow
def test_the_processors_error_is_what_its_pairs_tell() -> None:
    found = list(ratios.cpu())
    assert load("cpu").log_sd == pytest.approx(rows.log_sd([each.row for each in found]), abs=0.01)
    assert 0.85 <= np.mean([each.inside for each in found]) <= 0.95
