"""What judges does not calibrate; the fastest that agrees well enough wins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compress.data import Data
from compress.errors import DataError
from compress.model import Model
from compress.quantize.judge import Aim, Candidate, Judge, choose, split
from compress.quantize.ways import Way

AIM = Aim(enough_db=28, least_db=24)


def everything(*names: str) -> bool:
    return True


def candidate(name: str, snr_db: float, ratio: float, model: Model) -> Candidate:
    return Candidate(name, Way(name=name, model=model, chosen=everything), model, [], snr_db, ratio)


def test_the_fastest_that_agrees_well_enough_wins(digits: Model) -> None:
    exact, fast, wrong = (
        candidate("exact", 50, 1.0, digits),
        candidate("fast", 35, 0.5, digits),
        candidate("wrong", 10, 0.3, digits),
    )
    assert choose([exact, fast, wrong], 30, 24) is fast
    assert choose([exact, fast, wrong], 40, 34) is fast, "nothing that agrees better is faster"
    assert choose([exact, fast, wrong], 45, 39) is exact
    alike = candidate("alike", 36, 0.51, digits)
    assert choose([exact, fast, alike], 30, 24) is alike


def numbers(data: Data) -> list[int]:
    return [int(batch["x"][0]) for batch, _ in data.raw()]


def test_every_fourth_batch_judges_and_does_not_calibrate() -> None:
    calibrating, judging = split(Data([{"x": np.array([number])} for number in range(9)]))
    assert numbers(judging) == [3, 7]
    assert numbers(calibrating) == [0, 1, 2, 4, 5, 6, 8]


def test_few_batches_do_both() -> None:
    calibrating, judging = split(Data([{"x": np.array([number])} for number in range(3)]))
    assert numbers(calibrating) == numbers(judging) == [0, 1, 2]


def test_a_judge_measures_agreement_and_notes_refusals(mlp: Model) -> None:
    judge = Judge(mlp, mlp.ir, AIM)
    way = Way(name="weights", model=judge.model, chosen=everything)
    measured = judge.attempt(way)
    assert 20 < measured.snr_db < 100
    assert str(measured) == f"weights: {measured.snr_db:.1f} dB"
    assert math.isfinite(judge.timed([measured], 30)[0].ratio)
    with judge.refusals("another"):
        raise DataError("no rows")
    assert judge.failures == ["another: no rows"]
    with pytest.raises(ZeroDivisionError), judge.refusals("a fault"):
        raise ZeroDivisionError
    assert len(judge.failures) == 1, "only what a model or its data may cause is noted"


def test_what_cannot_win_any_more_is_timed_on_one_sample(mlp: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge(mlp, mlp.ir, AIM)
    ratios = iter([0.5, 0.6, 0.9, 0.62, 0.8, 0.9, 1.1])
    monkeypatch.setattr("compress.quantize.judge.processor_ratio", lambda *_: next(ratios))
    names = {"weights": 40, "slow": 35, "closer": 36, "poor": 25, "integers": 34}
    found = judge.timed([candidate(name, close, math.nan, mlp) for name, close in names.items()], target=30)
    assert {each.name: each.ratio for each in found} == {
        "integers": 0.6,  # of 0.5 and 0.6
        "poor": 0.9,
        "closer": 0.8,  # 0.62 is within the noise of timings
        "slow": 0.9,
        "weights": 1.1,
    }
    assert [each.name for each in found] == [*names]
    assert choose(found, 30, 24) is found[-1]


def test_a_table_tells_the_noise_and_the_time_of_layers(mlp: Model) -> None:
    judge = Judge(mlp, mlp.ir, AIM)
    way = Way(name="each run", model=judge.model, chosen=everything, each_run=True)
    whole = judge.attempt(way)
    table = judge.table(whole, noisy=True)
    assert list(table.noise) == way.layers()
    assert {name for group in table.between for name in group.layers} == set(table.noise)
    predicted = -10 * math.log10(table.added(table.noise))
    assert abs(predicted - whole.snr_db) < 4
    assert table.time(()) == pytest.approx(1), "times are parts of the original's"
    floats = [name for name in table.noise if name not in table.fastest(math.inf)]
    assert len(floats) < len(table.noise) or table.time(table.noise) >= 1
    few = judge.attempt(way, list(table.noise)[:1])
    assert few.name == f"each run, but 1 of {len(table.noise)} layers"
    assert few.snr_db > whole.snr_db
