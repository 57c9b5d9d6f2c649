"""The commands below ``estimate``, with all their options."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compress.estimator import estimate
from compress.estimator.meter import find_meter

Call = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("small", "integers")


def answer(found: Any) -> Any:
    """Return the JSON of a command that went well and said nothing else."""
    assert (found.code, found.err) == (0, "")
    return json.loads(found.out)


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.usefixtures("linear")
def test_estimate_scores_any_onnx_file(call: Call) -> None:
    found = call("estimate", "linear.onnx", "--hardware", "eyeriss-v1", "--layers")
    assert found.code == 0
    assert "linear" in found.out and "MatMul" in found.out
    few = json.loads(call("estimate", "linear.onnx", "--hardware", "eyeriss-v1", "--json").out)
    many = json.loads(
        call("estimate", "linear.onnx", "--hardware", "eyeriss-v1", "--json", "--shape", "x=10x256").out
    )
    assert few["hardware"]["eyeriss-v1"]["macs"] == 256 * 8
    assert many["hardware"]["eyeriss-v1"]["macs"] == 256 * 8 * 10
    assert "layers" not in few["hardware"]["eyeriss-v1"]


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
    def points(deadline: str) -> Any:
        return answer(
            call("estimate", "clock", "q.onnx", "--hardware", "gap9", "--deadline", deadline, "--json")
        )

    fast, slow = sorted(one["seconds"] for one in points("1")["points"]["gap9"])
    relaxed = points(f"{2e3 * slow}ms")["points"]["gap9"]
    assert [one["meets"] for one in relaxed] == [True, True]
    assert relaxed[0]["energy_joules"] <= relaxed[1]["energy_joules"]
    hurried = points(f"{2 / (slow + fast)}/s")
    assert hurried["deadline_seconds"] == pytest.approx((slow + fast) / 2)
    assert [one["meets"] for one in hurried["points"]["gap9"]] == [True, False]
    assert hurried["points"]["gap9"][0]["seconds"] == fast


@pytest.mark.parametrize("deadline", ["0.02", "20ms", "20000us", "0.02s", "50/s"])
def test_a_deadline_is_a_time_or_a_rate(deadline: str, call: Call) -> None:
    found = call("estimate", "clock", "q.onnx", "--hardware", "gap9", "--deadline", deadline, "--json")
    assert answer(found)["deadline_seconds"] == pytest.approx(0.02)


def test_strategies_stand_side_by_side(call: Call) -> None:
    def shown(hardware: str, deadline: str) -> str:
        return str(call("estimate", "clock", "q.onnx", "--hardware", hardware, "--deadline", deadline).out)

    relaxed = shown("gap9", "1")
    assert "slow and steady" in relaxed and "race to idle" in relaxed
    assert "The cheapest point that meets the deadline is 0.65 V at 240 MHz." in squeezed(relaxed)
    assert "The profile states no idle power" in squeezed(shown("eyeriss-v1", "1"))
    missed = shown("gap9", "1e-9")
    assert missed.count("too slow") == 2
    assert "No point meets the deadline; the fastest takes" in missed


@pytest.mark.parametrize("parallel", ["data", "tensor", "pipeline"])
def test_several_devices_stand_below_one(parallel: str, call: Call) -> None:
    command = "estimate", "split", "m.onnx", "--hardware", "h200", "--devices", "2", "--parallel", parallel
    found = answer(call(*command, "--json"))
    assert found["parallel"] == parallel
    one, two = found["hardware"]["h200"]
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["energy_joules"] == pytest.approx(estimate("m.onnx", "h200").total.energy_joules, rel=1e-9)
    assert (two["link_bytes"] > 0) == (parallel != "data")
    assert re.search(r"h200 +2 ", call(*command).out)


def test_a_filled_pipeline_waits_less(call: Call) -> None:
    def between(parallel: str) -> Any:
        command = "estimate", "split", "m.onnx", "--hardware", "h200", "--devices", "2", "--json"
        return answer(call(*command, "--parallel", parallel))["hardware"]["h200"][1]["seconds_between"]

    assert between("pipeline:8") < between("pipeline") == between("pipeline:1")


def test_more_devices_than_layers(call: Call) -> None:
    options = "--hardware", "h200", "--devices", "64", "--parallel", "pipeline"
    found = call("estimate", "split", "m.onnx", *options)
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
    found = answer(call("estimate", "q.onnx", "--hardware", "gap9", "--layers", "--json"))
    assert "MatMulInteger" in [layer["op_type"] for layer in found["hardware"]["gap9"]["layers"]]


def test_what_does_not_run_stands_beside_what_does(call: Call) -> None:
    command = "estimate", "m.onnx", "--hardware", "gap9", "--hardware", "tpu-v4i"
    found = answer(call(*command, "--json"))
    assert list(found["hardware"]) == ["tpu-v4i"]
    assert found["hardware"]["tpu-v4i"]["runs_as"] == {"float32": "bf16"}
    assert found["refused"]["gap9"].startswith("does not run on gap9: layer 'h' multiplies float32")
    shown = call(*command)
    assert re.search(r"gap9 +does not run", shown.out)
    assert "tpu-v4i: float32 deployed as bf16" in shown.err
    assert "does not run on gap9: layer 'h'" in shown.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("m.onnx --hardware abacus", "unknown hardware 'abacus'"),
        ("no-such.onnx", "no-such.onnx: no such file or folder"),
        ("m.onnx --shape x=1xb", "--shape x=1xb: write NAME=SIZES, such as x=1x3x224x224"),
        ("m.onnx --shape 1x3", "--shape 1x3: write NAME=SIZES, such as x=1x3x224x224"),
        ("clock m.onnx --hardware cpu-arm --deadline 1", "cpu-arm states no operating points"),
        (
            "split q.onnx --hardware gap9 --devices 2 --parallel tensor",
            "gap9 states no link between devices",
        ),
        ("m.onnx --hardware gap9", "does not run on gap9: layer 'h' multiplies float32"),
        (
            "m.onnx --hardware gap9 --shape pats=3",
            "the model has no open dimension 'pats'; did you mean 'past'?",
        ),
        ("m.onnx --hardware gap9 --zeros no.json", "no.json: No such file or directory"),
        ("m.onnx --hardware gap9 --zeros words.json", "words.json: x: Input should be a valid number"),
        ("m.onnx --hardware gap9 --zeros unknown.json", "zeros of 'nothing': the graph has no such value"),
        ("m.onnx --measure --shape x=2x3", "input 'x': shape 2x3 where the model takes [batch,256]"),
    ],
)
def test_estimate_refuses(options: str, message: str, call: Call) -> None:
    Path("words.json").write_text('{"x": "half"}')
    Path("unknown.json").write_text('{"nothing": 0.5}')
    found = call("estimate", *options.split())
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(f"error: {message}")
    assert found.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("clock m.onnx --deadline 1", "Missing option '--hardware'"),
        ("clock m.onnx --hardware gap9", "Missing option '--deadline'"),
        ("clock m.onnx --hardware gap9 --deadline 1 --rate 2", "No such option: --rate"),
        ("clock m.onnx --hardware gap9 --deadline 1 --measure", "No such option: --measure"),
        ("clock m.onnx --hardware gap9 --deadline 0", "'--deadline': 0 must be above 0 and finite"),
        ("clock m.onnx --hardware gap9 --deadline inf/s", "inf/s must be above 0 and finite"),
        ("clock m.onnx --hardware gap9 --deadline soon", "soon is not a time; write 0.02, 20ms or 50/s"),
        ("split m.onnx --hardware h200 --devices 2", "Missing option '--parallel'"),
        ("split m.onnx --hardware h200 --parallel data", "Missing option '--devices'"),
        ("split m.onnx --hardware h200 --devices 2 --parallel data --layers", "No such option: --layers"),
        (
            "split m.onnx --hardware h200 --devices 2 --parallel data:8",
            "data:8 is unknown; write data, tensor",
        ),
        ("split m.onnx --hardware h200 --devices 2 --parallel pipeline:0", "pipeline:0 is unknown"),
        ("generation m.onnx --prompt 4", "Missing option '--tokens'"),
        ("generation m.onnx --prompt 4 --tokens 2 --shape past=3", "No such option: --shape"),
    ],
)
def test_the_parser_refuses_what_does_not_go_together(options: str, message: str, call: Call) -> None:
    found = call("estimate", *options.split())
    assert (found.code, found.out) == (2, "")
    assert message in squeezed(found.err)


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ("--deadline 1", "clock MODEL --deadline"),
        ("--rate=2", "clock MODEL --deadline 50/s"),
        ("--devices 2 --parallel data", "split MODEL --devices"),
        ("--microbatches 2", "split MODEL --devices 4 --parallel pipeline:8"),
        ("--prompt 4 --tokens 2", "generation MODEL --prompt"),
    ],
)
def test_an_option_of_another_question_is_refused_with_its_command(
    options: str, command: str, call: Call
) -> None:
    found = call("estimate", "m.onnx", "--hardware", "gap9", *options.split())
    assert (found.code, found.out) == (2, "")
    assert f"belongs to another command: write 'compress estimate {command}" in found.err


def test_the_plain_form_is_one_inference(call: Call) -> None:
    options = "q.onnx", "--hardware", "gap9", "--json"
    assert answer(call("estimate", *options)) == answer(call("estimate", "inference", *options))
    assert answer(call("estimate", *options[1:], "q.onnx")) == answer(call("estimate", *options))
    assert "--decode-at PLACE" in call("estimate", "-h").out


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
    options = "--hardware", "tpu-v4i", "--prompt", "64", "--tokens", "10"
    found = answer(call("estimate", "generation", language, *options, "--json"))["hardware"]["tpu-v4i"]
    assert found["all"]["macs"] == found["prompt"]["macs"] + 10 * found["each_token"]["macs"]
    assert re.search(r"each token +[\d.]+ µJ", call("estimate", "generation", language, *options).out)
    assert "no input has an open dimension" in call("estimate", "generation", "m.onnx", *options).err


def test_coded_weights_and_their_decoder(language: str, call: Call) -> None:
    command = "estimate", language, "--hardware", "tpu-v4i", "--json"
    plain, load, dram = (
        answer(call(*command, *more))["hardware"]["tpu-v4i"]["dram_bytes"]
        for more in ((), ("--decode-at", "load"), ("--decode-at", "dram"))
    )
    assert load == plain
    assert dram == pytest.approx(plain - 2 * 64 * 512, abs=2)  # all ones: nothing is left of the head
    assert "no memory 'l7'" in call(*command, "--decode-at", "l7").err
