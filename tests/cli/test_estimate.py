"""The commands ``estimate`` and ``hardware`` with all their options."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

from compress import cli
from compress.estimator import estimate, load
from compress.estimator.meter import find_meter


class Called(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Called]


@pytest.fixture
def call(
    build: Callable[..., onnx.ModelProto],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Call:
    """Run a command beside ``m.onnx``, which has an open batch size and an open length."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    rng = np.random.default_rng(0)
    w, v = (rng.standard_normal((size, 64)).astype(np.float32) for size in (256, 64))
    text = """g (float[batch,256] x, float[past] k) => (float[batch,64] y, float[past] z) {
        h = MatMul(x, w)
        r = Relu(h)
        y = MatMul(r, v)
        z = Relu(k)
    }"""
    onnx.save(build(text, w=w, v=v), "m.onnx")

    def call(*arguments: str) -> Called:
        monkeypatch.setattr(sys, "argv", ["compress", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return Called(int(caught.value.code or 0), *capsys.readouterr())

    return call


def answer(found: Called) -> Any:
    """Return the JSON of a command that went well and said nothing else."""
    assert (found.code, found.err) == (0, "")
    return json.loads(found.out)


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_shapes_of_inputs_and_of_dimensions(call: Call) -> None:
    def traffic(*shapes: str) -> Any:
        options = [word for shape in shapes for word in ("--shape", shape)]
        found = answer(call("estimate", "m.onnx", "--hardware", "eyeriss-v1", "--json", *options))
        return found["hardware"]["eyeriss-v1"]["dram_bytes"]

    assert traffic("past=512") == traffic("k=512") > traffic("past=1")
    assert traffic("batch=3", "past=7") == traffic("x=3x256", "k=7")


def test_zeros_of_a_file_count(call: Call) -> None:
    Path("zeros.json").write_text('{"x": 0.75}')
    command = "estimate", "m.onnx", "--hardware", "eyeriss-v1", "--json"
    dense, sparse = (answer(call(*command, *more)) for more in ([], ["--zeros", "zeros.json"]))
    expected = estimate("m.onnx", "eyeriss-v1", zeros={"x": 0.75}).total.energy_joules
    assert sparse["hardware"]["eyeriss-v1"]["energy_joules"] == pytest.approx(expected)
    assert expected < dense["hardware"]["eyeriss-v1"]["energy_joules"]


def test_a_deadline_chooses_the_point(call: Call) -> None:
    command = "estimate", "m.onnx", "--hardware", "eyeriss-v1"
    points = answer(call(*command, "--deadline", "1", "--json"))["points"]["eyeriss-v1"]
    fast, slow = sorted(one["seconds"] for one in points)
    relaxed = answer(call(*command, "--deadline", str(2 * slow), "--json"))["points"]["eyeriss-v1"]
    assert [one["meets"] for one in relaxed] == [True, True]
    assert relaxed[0]["energy_joules"] <= relaxed[1]["energy_joules"]
    hurried = answer(call(*command, "--rate", str(2 / (slow + fast)), "--json"))
    assert hurried["deadline_seconds"] == pytest.approx((slow + fast) / 2)
    assert [one["meets"] for one in hurried["points"]["eyeriss-v1"]] == [True, False]
    assert hurried["points"]["eyeriss-v1"][0]["seconds"] == fast


def test_strategies_stand_side_by_side(call: Call) -> None:
    command = "estimate", "m.onnx", "--hardware", "gap9", "--deadline"
    shown = call(*command, "1").out
    assert "slow and steady" in shown and "race to idle" in shown
    assert "The cheapest in time is 0.65 V at 240 MHz." in squeezed(shown)
    assert "It states no idle power" in squeezed(call(*command[:3], "eyeriss-v1", "--deadline", "1").out)
    missed = call(*command, "1e-9").out
    assert missed.count("too slow") == 2
    assert "No point is in time; the fastest takes" in missed


@pytest.mark.parametrize("parallel", ["data", "tensor", "pipeline"])
def test_several_devices_stand_below_one(parallel: str, call: Call) -> None:
    command = "estimate", "m.onnx", "--hardware", "h200", "--devices", "2", "--parallel", parallel
    found = answer(call(*command, "--json"))
    assert found["parallel"] == parallel
    one, two = found["hardware"]["h200"]
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["energy_joules"] == pytest.approx(estimate("m.onnx", "h200").total.energy_joules, rel=1e-9)
    assert (two["link_bytes"] > 0) == (parallel != "data")
    assert re.search(r"h200 +2 ", call(*command).out)


def test_a_filled_pipeline_waits_less(call: Call) -> None:
    command = "estimate", "m.onnx", "--hardware", "h200", "--devices", "2", "--parallel", "pipeline"

    def between(*more: str) -> Any:
        return answer(call(*command, "--json", *more))["hardware"]["h200"][1]["seconds_between"]

    assert between("--microbatches", "8") < between()


def test_more_devices_than_layers(call: Call) -> None:
    found = call("estimate", "m.onnx", "--hardware", "h200", "--devices", "64", "--parallel", "pipeline")
    assert re.search(r"Only \d of 64 devices have layers to run", found.out)


def test_measured_stands_beside_estimated(call: Call) -> None:
    command = "estimate", "m.onnx", "--hardware", "cpu", "--measure", "--shape", "k=7"
    found = answer(call(*command, "--json"))
    assert found["hardware"]["cpu"]["seconds"] > 0
    assert found["measured"]["seconds"] > 0
    shown = squeezed(call(*command).out)
    assert "measured on one core of this machine" in shown
    if isinstance(find_meter(), str):
        assert found["measured"]["joules"] is None
        assert " measured not measured " in shown and "energy not measured: " in shown
    else:
        assert found["measured"]["joules"] >= 0


def test_layers_are_in_the_json_too(call: Call) -> None:
    found = answer(call("estimate", "m.onnx", "--hardware", "gap9", "--layers", "--json"))
    assert "MatMul" in [layer["op_type"] for layer in found["hardware"]["gap9"]["layers"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--hardware gap9 --deadline 1 --rate 2", "--deadline and --rate do not go together"),
        ("--hardware gap9 --rate 2 --measure", "--rate and --measure do not go together"),
        (
            "--hardware h200 --devices 2 --parallel data --layers",
            "--devices and --layers do not go together",
        ),
        ("--hardware h200 --devices 2", "--devices and --parallel go together: give both"),
        ("--hardware h200 --parallel data", "--devices and --parallel go together: give both"),
        ("--hardware h200 --microbatches 2", "--microbatches needs --parallel pipeline"),
        ("--deadline 1", "--deadline needs --hardware ID"),
        ("--hardware gap9 --deadline 0", "--deadline 0: must be above 0"),
        ("--hardware gap9 --rate inf", "--rate inf: must be above 0 and finite"),
        ("--hardware cpu-arm --deadline 1", "cpu-arm states no operating points"),
        ("--hardware gap9 --devices 2 --parallel tensor", "gap9 states no link between devices"),
        ("--hardware gap9 --shape pats=3", "the model has no open dimension 'pats'; did you mean 'past'?"),
        ("--hardware gap9 --zeros no.json", "no.json: No such file or directory"),
        ("--hardware gap9 --zeros words.json", "words.json: x: Input should be a valid number"),
        ("--hardware gap9 --zeros unknown.json", "zeros of 'nothing': the graph has no such value"),
        ("--measure --shape x=2x3", "input 'x': shape 2x3 where the model takes [batch,256]"),
    ],
)
def test_estimate_refuses(options: str, message: str, call: Call) -> None:
    Path("words.json").write_text('{"x": "half"}')
    Path("unknown.json").write_text('{"nothing": 0.5}')
    found = call("estimate", "m.onnx", *options.split())
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(f"error: {message}")
    assert found.err.count("\n") == 1


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
        total = estimate("m.onnx", "gap9", shapes={"x": size}).total
        energy = {"joules": 2 * total.energy_joules, "seconds": 3 * total.seconds}
        rows.append({"model": "m.onnx", "shapes": {"x": size}, **energy})
    Path("taken").mkdir()
    Path("m.onnx").rename("taken/m.onnx")
    Path("taken/rows.json").write_text(json.dumps(rows))
    found = call("hardware", "fit", "gap9", "taken/rows.json", "-o", "fitted.yaml")
    assert (found.code, found.err) == (0, "")
    assert found.out.endswith("\nfitted.yaml\n")
    fitted = load("fitted.yaml")
    assert fitted.id == "gap9-fitted"
    assert fitted.sources["fit"] == "Fitted to rows.json"
    for row in rows:
        total = estimate("taken/m.onnx", fitted, shapes=row["shapes"]).total  # type: ignore[arg-type]
        assert total.seconds == pytest.approx(row["seconds"], rel=0.05)
        assert total.energy_joules == pytest.approx(row["joules"], rel=0.05)


def test_a_fit_of_too_little_says_so(call: Call) -> None:
    Path("one.json").write_text(
        '[{"model": "m.onnx", "joules": 1e-6, "seconds": 1e-3, "shapes": {"past": 9}}]'
    )
    found = call("hardware", "fit", "gap9", "one.json", "-o", "fitted.yaml")
    assert found.code == 0
    assert "Too few to tell all factors apart" in found.out


@pytest.fixture
def language(call: Call, build: Callable[..., onnx.ModelProto]) -> str:
    """A table, attention and a head."""
    text = """g (int64[1,tokens] ids) => (float[1,tokens,512] y) {
        x = Gather(table, ids)
        t = Transpose <perm = [0, 2, 1]> (x)
        scores = MatMul(x, t)
        p = Softmax(scores)
        h = MatMul(p, x)
        y = MatMul(h, head)
    }"""
    ones = np.ones((512, 64), np.float32)
    onnx.save(build(text, table=ones, head=ones.T.copy()), "language.onnx")
    return "language.onnx"


def test_a_prompt_and_the_tokens_after_it(language: str, call: Call) -> None:
    command = "estimate", language, "--hardware", "tpu-v4i", "--prompt", "64", "--tokens", "10"
    found = answer(call(*command, "--json"))["hardware"]["tpu-v4i"]
    assert found["all"]["macs"] == found["prompt"]["macs"] + 10 * found["each_token"]["macs"]
    assert re.search(r"each token +[\d.]+ µJ", call(*command).out)
    assert "--prompt and --tokens go together" in call(*command[:-2]).err
    assert "no input has an open dimension" in call("estimate", "m.onnx", *command[2:]).err


def test_coded_weights_and_their_decoder(language: str, call: Call) -> None:
    command = "estimate", language, "--hardware", "tpu-v4i", "--json"
    plain, load, dram = (
        answer(call(*command, *more))["hardware"]["tpu-v4i"]["dram_bytes"]
        for more in ((), ("--decode-at", "load"), ("--decode-at", "dram"))
    )
    assert load == plain
    assert dram == pytest.approx(plain - 4 * 64 * 512, abs=2)  # all ones: nothing is left of the head
    assert "no memory 'l7'" in call(*command, "--decode-at", "l7").err
