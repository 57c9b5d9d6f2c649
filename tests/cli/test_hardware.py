"""The commands below ``hardware``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress.estimator import catalogue, estimate, ids, load

Call = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("small")


def test_hardware_shows_every_number_with_its_source(call: Call) -> None:
    listed = call("hardware").out
    assert all(f"\n{name} " in listed for name in ids())
    shown = call("hardware", "eyeriss-v1").out
    for path, number in catalogue.load("eyeriss-v1").quantities():
        assert path in shown
        assert number.source in shown


def test_a_profile_of_ones_own(call: Call) -> None:
    assert call("hardware", "new", "my-board", "--like", "gap9").out == "my-board.yaml\n"
    mine, gap9 = load("my-board.yaml"), load("gap9")
    assert mine == gap9.model_copy(update={"id": "my-board"})
    assert call("hardware", "my-board.yaml").out == call("hardware", "gap9").out
    assert call("hardware", "new", "other", "-o", "b.yaml").code == 0
    assert load("b.yaml").title == load("cpu-arm").title


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "mine"], "mine.yaml exists already; name another file with -o"),
        (["new", "gap9"], "hardware 'gap9' exists already; choose another name"),
        (["new", "My Board"], "hardware 'My Board': id: String should match pattern"),
        (["new", "b", "--like", "gap8"], "unknown hardware 'gap8'; did you mean 'gap9'?"),
        (["new", "b", "-o", "nowhere/b.yaml"], "nowhere/b.yaml: No such file or directory"),
        (["gap8"], "unknown hardware 'gap8'; did you mean 'gap9'?"),
        (["fit", "gap9", "no.json", "-o", "f.yaml"], "no.json: No such file or directory"),
        (["fit", "gap9", "short.json", "-o", "f.yaml"], "short.json: 0: seconds: Field required"),
        (["fit", "gap9", "empty.json", "-o", "f.yaml"], "a fit needs at least one measurement"),
    ],
)
def test_hardware_refuses(arguments: list[str], message: str, call: Call) -> None:
    Path("mine.yaml").write_text("kept")
    Path("short.json").write_text('[{"model": "m.onnx", "joules": 1}]')
    Path("empty.json").write_text("[]")
    found = call("hardware", *arguments)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(f"error: {message}")
    assert Path("mine.yaml").read_text() == "kept"
    assert not Path("f.yaml").exists()


def test_a_profile_is_fitted_to_measurements(call: Call) -> None:
    sizes = [[1, 256], [8, 256], [500, 256]]
    rows = []
    for size in sizes:
        total = estimate("m.onnx", "stm32l4r5", shapes={"x": size}).total
        energy = {"joules": 2 * total.energy_joules, "seconds": 3 * total.seconds}
        rows.append({"model": "m.onnx", "shapes": {"x": size}, **energy})
    Path("taken").mkdir()
    Path("m.onnx").rename("taken/m.onnx")
    Path("taken/rows.json").write_text(json.dumps(rows))
    found = call("hardware", "fit", "stm32l4r5", "taken/rows.json", "-o", "fitted.yaml")
    assert (found.code, found.err) == (0, "")
    assert found.out.endswith("\nfitted.yaml\n")
    fitted = load("fitted.yaml")
    assert fitted.id == "stm32l4r5-fitted"
    assert fitted.sources["fit"] == "Fitted to rows.json"
    for row in rows:
        total = estimate("taken/m.onnx", fitted, shapes=row["shapes"]).total  # type: ignore[arg-type]
        assert total.seconds == pytest.approx(row["seconds"], rel=0.05)
        assert total.energy_joules == pytest.approx(row["joules"], rel=0.05)


def test_a_fit_of_too_little_says_so(call: Call) -> None:
    Path("one.json").write_text(
        '[{"model": "m.onnx", "joules": 1e-6, "seconds": 1e-3, "shapes": {"past": 9}}]'
    )
    found = call("hardware", "fit", "stm32l4r5", "one.json", "-o", "fitted.yaml")
    assert found.code == 0
    assert "too few measurements to tell all factors apart" in found.out
