"""From recipe to scored variants, on a small ONNX file: once, again, killed, failing, badly fed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import compress
from compress import codec
from compress.errors import DataError, InputError, ModelError, StoreError
from compress.passes import Int4Weights
from compress.results import Results

DATA = """
import numpy as np

def batches():
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = rng.normal(size=(8, 3, 8, 8)).astype(np.float32)
        yield {"x": x}, (x.mean((1, 2, 3)) > 0).astype(int)

def holding_nan():
    yield {"x": np.full((1, 3, 8, 8), np.nan, np.float32)}

def wrong_name():
    yield {"y": np.zeros((1, 3, 8, 8), np.float32)}

def wrong_shape():
    yield {"x": np.zeros((1, 4, 8, 8), np.float32)}

def wrong_type():
    yield {"x": np.zeros((1, 3, 8, 8), complex)}

def nothing():
    return iter(())

def raising():
    raise RuntimeError("no disk")
    yield

def spread(run):
    return {"spread": float(run({"x": np.ones((2, 3, 8, 8), np.float32)})[0].std()), "other": 1}
"""
RECIPE = """
# Four variants of a toy
version: 1
model: toy.onnx
data: toy.py:batches
metric: accuracy
latency: 3
hardware: [tpu-v4i, gap9]
variants:
  int8: [int8-static]
  original: []
  folded-int4: [fold, int4-weights]
  int4: [int4-weights]
"""


def toy_model() -> onnx.ModelProto:
    """Return conv 3->16, relu, global mean, linear 16->2, with random weights."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "v", "d"], ["y"], "linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [weight("w", 16, 3, 3, 3), weight("b", 16), weight("v", 16, 2), weight("d", 2)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    onnx.save(toy_model(), tmp_path / "toy.onnx")
    (tmp_path / "toy.py").write_text(DATA)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def timeless(results: Results | Path) -> Any:
    """Return results without what differs from run to run: times."""
    document = Results.load(results) if isinstance(results, Path) else results
    plain = json.loads(document.model_dump_json())
    del plain["environment"]["finished"], plain["spent"]
    for variant in plain["variants"]:
        variant["latency_seconds"] = variant["making"] = None
        for score in variant["hardware"].values():
            score["payback"] = None
    return plain


@pytest.fixture
def done(recipe: Path) -> tuple[Path, Results]:
    return recipe.parent / "out", compress.run(recipe, recipe.parent / "out")


def test_a_recipe_may_ask_for_packed_files(recipe: Path) -> None:
    folder = recipe.parent / "out"
    recipe.write_text(recipe.read_text() + "pack: true\n")
    for variant in compress.run(recipe, folder, variants=["int8"]).variants:
        packed = folder / variant.name / "model.packed"
        assert 0 < variant.packed_bytes == packed.stat().st_size
        restored = codec.unpack(packed, folder / "restored.onnx")
        assert restored.read_bytes() == (folder / variant.path).read_bytes()
    recipe.write_text(recipe.read_text().replace("pack: true\n", ""))
    assert [one.packed_bytes for one in compress.run(recipe, folder, variants=["int8"]).variants] == [0, 0]
    assert not list(folder.glob("*/model.packed"))


def test_every_variant_is_exported_and_scored(done: tuple[Path, Results]) -> None:
    folder, results = done
    assert [variant.name for variant in results.variants] == ["original", "int8", "folded-int4", "int4"]
    for variant in results.variants:
        assert variant.status == "done"
        onnx.checker.check_model(str(folder / variant.path), full_check=variant.name in ("original", "int8"))
        assert variant.file_bytes == (folder / variant.path).stat().st_size
        assert variant.metric and variant.agreement and variant.latency_seconds
        assert variant.hardware["tpu-v4i"].energy_joules > 0
    original, int8, folded, int4 = results.variants
    assert int8.weight_bytes < original.weight_bytes
    assert original.weights is None
    assert int8.weights and int8.weights.compressed > 0.8
    assert int8.hardware["tpu-v4i"].dram_bytes < original.hardware["tpu-v4i"].dram_bytes
    assert [change.by for change in folded.changes][-1] == "int4-weights"
    assert folded.agreement == int4.agreement
    assert Results.load(folder / "results.json") == results


def test_a_variant_is_scored_where_it_runs(done: tuple[Path, Results]) -> None:
    original, int8, *_ = done[1].variants
    assert "multiplies float32" in original.refused["gap9"]
    assert original.hardware["tpu-v4i"].runs_as == {"float32": "bf16"}
    assert int8.refused == {} and int8.hardware["gap9"].energy_joules > 0


def test_energy_here_follows_the_latency_beside_it(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("[tpu-v4i, gap9]", "[cpu]"))
    original, *variants = compress.run(recipe, recipe.parent / "out", variants=["int8", "int4"]).variants
    assert original.latency_seconds and original.latency_seconds.ratio == 1
    for variant in variants:
        timed, score, base = variant.latency_seconds, variant.hardware["cpu"], original.hardware["cpu"]
        assert timed and score.timed and base.timed
        assert timed.median == pytest.approx(original.latency_seconds.median * timed.ratio)
        assert score.seconds == pytest.approx(timed.median)
        assert score.energy["package"] / base.energy["package"] == pytest.approx(timed.ratio)
        assert score.ratio and score.ratio.value == pytest.approx(timed.ratio, abs=0.05)


def test_the_pareto_front_is_what_brute_force_finds(done: tuple[Path, Results]) -> None:
    points = {
        variant.name: (
            variant.metric.value if variant.metric else 0,
            -variant.hardware["tpu-v4i"].energy_joules,
        )
        for variant in done[1].variants
    }
    for variant in done[1].variants:
        mine = points[variant.name]
        beaten = any(p[0] >= mine[0] and p[1] >= mine[1] and p != mine for p in points.values())
        assert ("tpu-v4i" in variant.pareto) is not beaten


def test_a_second_run_computes_nothing(done: tuple[Path, Results], recipe: Path) -> None:
    folder, first = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.onnx")}
    script = (
        "import sys, compress.cli\n"
        "sys.argv = ['compress', 'run', sys.argv[1], '-o', sys.argv[2]]\n"
        "try: compress.cli.main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, sorted({'torch', 'onnxruntime', 'onnx'} & set(sys.modules)), file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, recipe, folder], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stderr.strip().splitlines()[-1] == "0 []"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.onnx")} == before
    assert timeless(folder / "results.json") == timeless(first)


def test_a_run_killed_anywhere_ends_the_same(done: tuple[Path, Results], recipe: Path) -> None:
    folder = recipe.parent / "killed"
    command = [sys.executable, "-m", "compress.cli", "run", os.fspath(recipe), "-o", os.fspath(folder)]
    for seconds in (1.5, 3.5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
    assert timeless(folder / "results.json") == timeless(done[1])
    assert not list((folder / ".store").glob(".partial-*"))


def test_damaged_results_of_an_earlier_run_are_named(done: tuple[Path, Results], recipe: Path) -> None:
    folder, first = done
    for path in (folder / ".store").rglob("score.json"):
        path.write_text("{")
    with pytest.raises(StoreError, match=r"score\.json: damaged; --fresh does all work again"):
        compress.run(recipe, folder)
    compress.run(recipe, folder, fresh=True)
    assert timeless(folder / "results.json") == timeless(first)


def test_a_failed_variant_is_reported_while_the_others_finish(recipe: Path) -> None:
    recipe.write_text(
        RECIPE
        + "  hopeless: [{int4-weights: {include: [nothing]}}]\n"
        + "  same: [{int4-weights: {exclude: ['*']}}]\n  late: [fold, int4-weights]\n"
    )
    results = compress.run(recipe, recipe.parent / "out")
    status = {variant.name: (variant.status, variant.reason) for variant in results.variants}
    assert status["hopeless"][0] == "failed"
    assert "integer-weights: {bits: 4, include" in status["hopeless"][1]
    assert "no layer or weight is called 'nothing'" in status["hopeless"][1]
    assert status["same"] == ("unchanged", "left out by include or exclude")
    assert not (recipe.parent / "out" / "same").exists()
    assert status["late"] == ("done", "")


def test_a_search_runs_behind_the_variants_and_finds_what_a_recipe_can_hold(recipe: Path) -> None:
    recipe.write_text(f"{RECIPE}search: {{limits: {{min_snr: 10}}, hardware: gap9, evaluations: 3}}\n")
    results = compress.run(recipe, recipe.parent / "out")
    assert results.searched is not None
    names = [point.name for point in results.searched.points if point.passes]
    assert names and [variant.name for variant in results.variants][-len(names) :] == names
    pasted = recipe.with_name("pasted.yaml")
    settings = RECIPE.partition("variants:")[0]
    pasted.write_text(settings + (recipe.parent / "out/variants.yaml").read_text())
    compress.run(pasted, recipe.parent / "again")
    for name in names:
        made = [recipe.parent / folder / name / "model.onnx" for folder in ("out", "again")]
        assert made[0].read_bytes() == made[1].read_bytes()


def test_a_search_that_finds_nothing_loses_no_other_variant(recipe: Path) -> None:
    recipe.write_text(f"{RECIPE}search: {{limits: {{flash: 1 B}}, hardware: gap9, evaluations: 2}}\n")
    results = compress.run(recipe, recipe.parent / "out")
    status = {variant.name: (variant.status, variant.reason) for variant in results.variants}
    assert status["int8"] == ("done", "")
    assert status["search"][0] == "failed"
    assert "no variant keeps the limits on gap9: flash" in status["search"][1]
    assert Results.load(recipe.parent / "out/results.json").variants == results.variants


def test_a_variant_that_no_longer_changes_anything_leaves_no_file(recipe: Path) -> None:
    folder, chosen = recipe.parent / "out", RECIPE + "  last: [{}]\n"
    for passes, there in (("int8-weights", True), ("{int4-weights: {exclude: ['*']}}", False)):
        recipe.write_text(chosen.format(passes))
        compress.run(recipe, folder, variants=["last"])
        assert (folder / "last" / "model.onnx").exists() == there
    recipe.write_text(chosen.format("int8-weights"))
    compress.run(recipe, folder, variants=["last"])
    recipe.write_text(chosen.format("{int4-weights: {include: [nothing]}}"))
    assert compress.run(recipe, folder, variants=["last"]).variants[-1].status == "failed"
    assert not (folder / "last" / "model.onnx").exists()


def test_changed_code_is_run_anew_and_unchanged_is_not(done: tuple[Path, Results], recipe: Path) -> None:
    folder, _ = done
    keys = {path.name for path in (folder / ".store").iterdir()}
    compress.run(recipe, folder)
    assert {path.name for path in (folder / ".store").iterdir()} == keys
    (recipe.parent / "toy.py").write_text(DATA.replace("default_rng(0)", "default_rng(1)"))
    compress.run(recipe, folder)
    assert {path.name for path in (folder / ".store").iterdir()} > keys


def test_a_users_metric_counts_and_its_other_numbers_are_kept(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("metric: accuracy", "metric: {name: toy.py:spread, better: lower}"))
    original, int8, *_ = compress.run(recipe, recipe.parent / "out").variants
    assert original.metric and int8.metric
    assert (int8.metric.name, int8.metric.better, int8.metric.others) == ("spread", "lower", {"other": 1.0})
    assert int8.metric.delta == pytest.approx(int8.metric.value - original.metric.value)


def test_without_data_weight_only_variants_run(recipe: Path) -> None:
    text = RECIPE.replace("data: toy.py:batches\nmetric: accuracy\n", "").replace(
        "  int8: [int8-static]\n", ""
    )
    recipe.write_text(text)
    int4 = compress.run(recipe, recipe.parent / "out").variants[-1]
    assert int4.status == "done"
    assert int4.metric is None
    assert int4.agreement is None


def test_a_missed_limit_is_said_in_words(recipe: Path) -> None:
    recipe.write_text(RECIPE + "budget: {weights: 1%}\n")
    original, int8, *_ = compress.run(recipe, recipe.parent / "out").variants
    assert original.limits_missed == []
    assert "over the limit of 1%" in int8.limits_missed[0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("holding_nan", r"data, batch 0, input 'x': holds NaN"),
        ("wrong_name", r"batch 0: the model has no input 'y'"),
        ("wrong_shape", r"input 'x': shape 1x4x8x8 where the model takes \?x3x8x8"),
        ("wrong_type", r"input 'x': type complex128 where the model takes float32"),
        ("nothing", r"there are no batches"),
    ],
)
def test_bad_data_stop_the_run_with_one_message(recipe: Path, function: str, message: str) -> None:
    recipe.write_text(
        RECIPE.replace("toy.py:batches", f"toy.py:{function}").replace("metric: accuracy\n", "")
    )
    with pytest.raises(DataError, match=message):
        compress.run(recipe, recipe.parent / "out")
    assert not (recipe.parent / "out" / "results.json").exists()


def test_a_data_function_that_raises_is_named(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("toy.py:batches", "toy.py:raising"))
    with pytest.raises(DataError, match=r"evaluation data: RuntimeError: no disk \(.*toy.py:\d+\)"):
        compress.run(recipe, recipe.parent / "out")


@pytest.mark.parametrize("size", [0, 1, 40, 1000])
def test_a_model_cut_short_is_one_message(recipe: Path, size: int) -> None:
    file = recipe.parent / "toy.onnx"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"toy\.onnx: "):
        compress.run(recipe, recipe.parent / "out")
    assert not (recipe.parent / "out" / "results.json").exists()


def test_a_full_disk_is_one_message_and_leaves_nothing_half_written(recipe: Path) -> None:
    # A file size limit of 4 kB stands for the full disk: the write of a model fails in its middle.
    script = (
        "import resource, signal, sys, compress, compress.errors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: compress.run(sys.argv[1], sys.argv[2])\n"
        "except compress.errors.StoreError as error: print(error); sys.exit(error.exit_code)\n"
    )
    folder = recipe.parent / "out"
    ran = subprocess.run(
        [sys.executable, "-B", "-c", script, recipe, folder],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == StoreError.exit_code, ran.stderr
    assert "cannot be written: File too large" in ran.stdout
    assert not list(folder.rglob("*.onnx")) and not (folder / "results.json").exists()


@pytest.fixture
def broken(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose variant int4 meets an error in the code of its pass."""

    def fail(self: Int4Weights, model: compress.Model) -> Any:
        raise ZeroDivisionError("a slip in the code")

    monkeypatch.setattr(Int4Weights, "apply", fail)
    return recipe


def test_an_unforeseen_error_is_logged_with_its_traceback(
    broken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = broken.parent / "out"
    original, int8, folded, int4 = compress.run(broken, folder).variants
    assert [one.status for one in (original, int8, folded, int4)] == ["done", "done", "failed", "failed"]
    assert int4.reason == "ZeroDivisionError: a slip in the code"
    log = (folder / int4.log).read_text()
    assert "variant int4 failed\nTraceback" in log and "variant folded-int4 failed\nTraceback" in log
    assert 'raise ZeroDivisionError("a slip in the code")' in log
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_the_log_is_of_this_run_and_of_what_nobody_foresaw(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = broken.parent / "out"
    compress.run(broken, folder)
    monkeypatch.undo()
    results = compress.run(broken, folder)
    assert [(one.status, one.log) for one in results.variants] == [("done", "")] * 4
    broken.write_text(RECIPE + "  hopeless: [{int4-weights: {include: [nothing]}}]\n")
    hopeless = compress.run(broken, folder).variants[-1]
    assert (hopeless.status, hopeless.log) == ("failed", "")
    assert not (folder / "log.txt").exists()


def test_a_variant_that_the_recipe_lacks_is_bad_input(recipe: Path) -> None:
    with pytest.raises(InputError, match=r"recipe\.yaml: there is no variant 'int9'; did you mean 'int"):
        compress.run(recipe, recipe.parent / "out", variants=["int9"])
    assert not (recipe.parent / "out").exists()
