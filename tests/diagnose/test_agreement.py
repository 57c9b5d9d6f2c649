"""Agreement against its formula; the worst output counts; what cannot be compared is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compress import units
from compress.data import Feeds
from compress.diagnose.agreement import Run, agreement
from compress.diagnose.outputs import Output
from compress.errors import PassError
from compress.results import Agreement

SCORES = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)


def identity(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"]]


def shifted(feeds: Feeds) -> list[np.ndarray]:
    return [feeds["x"] + np.float32(0.1)]


@settings(deadline=None)
@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)))
def test_agreement_is_the_signal_to_noise_ratio(x: np.ndarray) -> None:
    found = agreement(shifted, identity, [{"x": x}])
    noise = float(np.square(x.astype(np.float64) - (x + np.float32(0.1))).sum())
    signal = float(np.square(x.astype(np.float64)).sum())
    assert found.snr_db == (pytest.approx(10 * math.log10(signal / noise)) if signal else None)


def test_outputs_that_do_not_differ_have_no_noise_and_are_identical() -> None:
    found = agreement(identity, identity, [{"x": SCORES}])
    assert found == Agreement(equal=1.0, top1=1.0)
    assert (found.is_identical, found.decibels, found.figures) == (True, math.inf, ["identical"])


def test_agreement_reports_the_worst_output() -> None:
    def original(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"], feeds["x"]]

    def variant(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"], -feeds["x"]]

    found = agreement(variant, original, [{"x": SCORES}])
    assert found.snr_db == pytest.approx(-20 * math.log10(2))
    assert found.cosine == pytest.approx(-1.0)


def test_nan_in_a_variants_outputs_is_an_error_but_shared_infinities_are_not() -> None:
    def broken(feeds: Feeds) -> list[np.ndarray]:
        return [feeds["x"] * np.float32(np.nan)]

    with pytest.raises(PassError, match="output 0 holds NaN"):
        agreement(broken, identity, [{"x": np.ones((2, 2), np.float32)}])
    masked = np.array([[1.0, -np.inf]], np.float32)
    assert agreement(identity, identity, [{"x": masked}]).is_identical


def test_what_is_not_finite_in_the_original_must_be_the_same() -> None:
    masked, shown = np.array([[1.0, -np.inf, np.nan, 2.0]], np.float32), np.ones((1, 4), np.float32)
    shown[0, 3] = 2.0
    found = compared([masked], [shown])
    assert (found.is_identical, found.snr_db, found.equal) == (False, None, 0.0)
    assert found.notes == {"0": "2 of 2 values that are NaN, infinite or masked differ"}


def compared(theirs: Sequence[Any], ours: Sequence[Any], **known: Any) -> Agreement:
    """Compare the one output of an original with that of a variant, batch by batch."""
    return agreement(
        lambda feeds: [ours[int(feeds["x"][0])]],
        lambda feeds: [theirs[int(feeds["x"][0])]],
        [{"x": np.array([number])} for number in range(len(theirs))],
        [Output("0", **known)],
    )


LABELS = np.array([3, 1, 2, 2])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (LABELS, np.array([3, 1, 0, 2])),
        (LABELS > 1, np.array([True, False, True, False])),
        (np.array(["a", "b", "c", "d"], object), np.array(["a", "b", "c", "e"], object)),
        (np.zeros((2, 2), np.float32), np.array([[0, 0], [0.5, 0]], np.float32)),
    ],
)
def test_labels_masks_strings_and_zeros_agree_by_their_share_of_equal_elements(
    theirs: Any, ours: Any
) -> None:
    found = compared([theirs], [ours])
    assert (found.snr_db, found.cosine, found.equal) == (None, None, 0.75)
    assert found.figures[0] == "75.0% equal"
    assert found.decibels == pytest.approx(-10 * math.log10(2 * 0.25))
    json.loads(found.model_dump_json(), parse_constant=lambda constant: pytest.fail(constant))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_numbers_whose_squares_are_past_floating_point_are_not_called_identical(scale: float) -> None:
    found = compared([np.array([1.0, 2.0]) * scale], [np.array([1.0, 3.0]) * scale])
    assert (found.snr_db, found.equal, found.is_identical) == (None, 0.5, False)


def test_a_label_that_differs_is_worse_than_scores_that_hardly_do() -> None:
    def both(label: int, scale: float) -> Run:
        return lambda feeds: [feeds["x"] * np.float32(scale), np.array([label, 1])]

    found = agreement(both(0, 1.001), both(1, 1.0), [{"x": SCORES}])
    assert found.snr_db == pytest.approx(60, abs=0.1)
    assert (found.equal, found.top1) == (0.5, 1.0)
    assert found.decibels == pytest.approx(0)
    assert found.figures == [
        units.decibels(found.snr_db or 0),
        "cosine >0.9999",
        "50.0% equal",
        "100.0% top-1",
    ]


def test_the_largest_of_a_row_stays_in_its_place_or_not() -> None:
    theirs = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    assert compared([theirs], [theirs[:, ::-1]]).top1 == 0.0
    assert compared([theirs], [theirs + np.array([[0, 0], [0, 0.7]])]).top1 == 0.5
    image = np.zeros((1, 1, 2, 2), np.float32)
    assert compared([image], [image]).top1 is None
    ranked = np.sort(np.random.default_rng(0).normal(size=(16, 5)), axis=-1)[:, ::-1]
    assert compared([ranked], [ranked[::-1]]).top1 is None, "sorted rows are not ranked by their places"


def test_what_a_mask_fills_in_is_no_signal() -> None:
    """-1e9 in the place of a logit would make any noise look small."""
    random = np.random.default_rng(0)
    theirs = random.normal(size=(4, 8)).astype(np.float32)
    theirs[:, 5:] = -1e9
    ours = theirs.copy()
    ours[:, :5] += random.normal(size=(4, 5)).astype(np.float32)
    assert compared([theirs], [ours]).snr_db == pytest.approx(0, abs=3)
    moved = theirs.copy()
    moved[0, 5] = -2e9
    assert "1 of 12 values that are NaN, infinite or masked differ" in compared([theirs], [moved]).notes["0"]


@pytest.mark.parametrize(
    ("theirs", "note"),
    [
        ([np.full(3, 7.5)], "the original's is constant, 7.5 throughout"),
        ([np.zeros(2, bool), np.zeros(3, bool)], "the original's is constant, False throughout"),
        ([np.arange(3), np.arange(3)], "the original's is the same for every batch"),
        ([np.zeros((0, 4))], "the original's has no elements"),
    ],
)
def test_outputs_that_never_change_are_named(theirs: Sequence[Any], note: str) -> None:
    assert compared(theirs, theirs).notes == {"0": note}
    assert not compared([np.arange(3), np.arange(4)], [np.arange(3), np.arange(4)]).notes


def test_items_that_the_data_choose_are_matched_by_value() -> None:
    boxes = np.array([[0, 0, 5], [0, 1, 7], [1, 0, 2]])
    found = compared([boxes], [boxes[[2, 0]]], free=None, is_chosen=True, along=0)
    assert found.equal == pytest.approx(2 / 3)
    places = boxes.T
    assert compared([places], [places[:, ::-1]], free=None, is_chosen=True, along=1).is_identical


def test_other_sizes_cannot_be_compared_unless_the_graph_rules_them_out() -> None:
    found = compared([np.ones((3, 2))], [np.ones((2, 2))], free=frozenset({0}))
    assert found == Agreement(not_comparable={"0": "shape (2, 2) where the original's has (3, 2)"})
    assert (found.decibels, found.is_identical, found.figures) == (None, False, ["not comparable"])
    with pytest.raises(PassError, match=r"output 0 has shape \(3, 1\) where the original's has \(3, 2\)"):
        compared([np.ones((3, 2))], [np.ones((3, 1))], free=frozenset({0}))


def test_sequences_maps_and_optionals_are_compared_by_what_they_hold() -> None:
    rows = [{"cat": 0.75, "dog": 0.25}, {"cat": 0.5, "dog": 0.5}]
    other = [{"cat": 0.25, "dog": 0.75}, {"cat": 0.5, "dog": 0.5}]
    found = compared([rows], [other])
    assert (found.snr_db, found.top1) == (pytest.approx(10 * math.log10(1.125 / 0.5)), 0.5)
    assert compared([rows], [[{"cat": 0.75, "cow": 0.25}] * 2]).figures == ["not comparable"]
    sequence = [np.arange(3), np.arange(2)]
    assert compared([sequence], [[np.arange(3), np.array([0, 3])]]).equal == 0.8
    assert compared([sequence], [sequence[:1]]).not_comparable == {"0": "1 arrays where the original has 2"}
    assert compared([None], [None]).is_identical
    assert compared([np.ones(2)], [None]).not_comparable


def test_blocks_of_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(60, dtype=np.float32).reshape(3, 5, 4)
    whole = agreement(shifted, identity, [{"x": x}])
    monkeypatch.setattr("compress.diagnose.agreement.BLOCK", 9)
    assert agreement(shifted, identity, [{"x": x}]).snr_db == pytest.approx(whole.snr_db)
    for empty in (np.ones((0, 4), np.float32), np.ones((4, 0), np.float32), np.float32(1)):
        agreement(shifted, identity, [{"x": empty}])
