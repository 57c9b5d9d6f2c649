"""The command that replays a trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from compress.results import HardwareScore, Metric, Results, VariantResult


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of a run with two variants."""
    monkeypatch.setenv("COLUMNS", "200")
    variants = [
        VariantResult(
            name=name,
            passes=[],
            status="done",
            metric=Metric(name="accuracy", value=accuracy, delta=0.0),
            hardware={
                "stm32u575": HardwareScore(
                    energy_joules=joules,
                    energy_low=joules,
                    energy_high=joules,
                    energy={},
                    dram_bytes=0,
                    bytes_moved={},
                    macs=1,
                    seconds=0.001,
                )
            },
        )
        for name, accuracy, joules in (("small", 0.8, 1.0), ("large", 0.9, 3.0))
    ]
    Results(recipe={}, environment={}, variants=variants).save(tmp_path / "results.json")
    (tmp_path / "day.csv").write_text("time,requests\n0:00,500\n12:00,500\n")
    return tmp_path


def test_a_replay_is_printed_and_drawn(call: Callable[..., tuple[int, str, str]], run: Path) -> None:
    code, out, _ = call("govern", ".", "--trace", "day.csv", "--budget", "2 kJ for 24 h")
    assert code == 0
    assert "of the optimum's gain; the best variant alone" in out
    assert [line.split()[0] for line in out.splitlines()[2:6]] == ["governor", "small", "large", "offline"]
    page = (run / "governor.html").read_text()
    assert "https://" not in page.partition("<script>")[0]
    assert '"joules left"' in page


def test_json_has_every_course(call: Callable[..., tuple[int, str, str]], run: Path) -> None:
    code, out, _ = call(
        "govern", ".", "--trace", "day.csv", "--budget", "2 kJ for 24 h", "--json", "-o", "x.html"
    )
    found = json.loads(out)
    assert code == 0
    assert found["budget_joules"] == 2000
    assert [each["name"] for each in found["courses"]] == ["governor", "small", "large", "offline optimum"]
    assert found["courses"][0]["joules"] <= 2000
    assert (run / "x.html").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--budget", "2 kg"), "'kg' is not a unit of energy or power"),
        (("--budget", "2 kJ"), "does not say how long it must last"),
        (("--budget", "2 W", "--deadline", "10 us"), "no variant meets the deadline of 10.0 µs"),
        (("--budget", "2 W", "--hardware", "h100"), "no score on hardware 'h100'"),
        (("--budget", "2 W", "--history", "none.csv"), "none.csv: No such file"),
    ],
)
def test_bad_input_ends_with_one_message(
    call: Callable[..., tuple[int, str, str]], run: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    code, out, err = call("govern", ".", "--trace", "day.csv", *arguments)
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


def test_a_budget_that_does_not_pay_for_all_ends_with_3(
    call: Callable[..., tuple[int, str, str]], run: Path
) -> None:
    code, out, _ = call("govern", ".", "--trace", "day.csv", "--budget", "600 J for 24 h")
    assert code == 3
    lost = int(out.partition(" requests could not be paid and got no answer")[0].split()[-1])
    assert 400 <= lost < 420
