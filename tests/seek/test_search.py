"""The search on a small network: what it finds, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import compress
from compress.errors import DataError, InputError, LimitError
from compress.model import Model
from compress.passes import Int8Static, PerLayer, PruneChannels
from compress.recipe.wanted import Search
from compress.seek import Frontier, find, search
from compress.seek.journal import Journal
from compress.seek.study import Study

SEARCH = Search(hardware="stm32u575", evaluations=6)


@pytest.fixture(scope="module")
def study(cnn: Model) -> Study:
    return Study(cnn, SEARCH, "accuracy", Journal())


@pytest.fixture(scope="module")
def frontier(cnn: Model) -> Frontier:
    return search(cnn, hardware="stm32u575", min_snr=8, evaluations=8)


def _random(study: Study, rng: np.random.Generator) -> tuple[int, ...]:
    """Return an assignment whose links hold: all codes and integers, or none of them."""
    integer = bool(rng.integers(2))
    return tuple(
        int(rng.integers(len(each.options)))
        if each.kind == "channels"
        else int(integer and len(each.options) > 1)
        for each in study.space.decisions
    )


def test_tables_add_up_to_the_whole_network(study: Study) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        chosen = _random(study, rng)
        assert study.problem.holds(chosen)
        whole = study._tables.costs(chosen)
        for quantity in ("energy", "seconds", "macs", "flash", "file"):
            assert study.problem.cost(quantity, chosen) == pytest.approx(whole[quantity], rel=1e-6)


def test_what_is_predicted_of_the_original_is_what_the_estimator_says(cnn: Model, study: Study) -> None:
    one = compress.estimate(cnn, "stm32u575", shapes={"x": (1, 3, 12, 12)})
    assert study.original["energy"] == pytest.approx(one.total.energy_joules)
    assert study.original["macs"] == one.total.macs
    assert study.original["file"] == pytest.approx(cnn.weight_bytes, rel=0.1)


def test_what_was_predicted_is_found(frontier: Frontier) -> None:
    assert len(frontier) >= 4
    for point in frontier:
        assert point.found["energy"] == pytest.approx(point.predicted["energy"], rel=0.05)
        assert point.found["macs"] == point.predicted["macs"]
    predicted = [point.predicted["loss"] for point in frontier]
    found = [point.noise for point in frontier]
    assert np.corrcoef(np.log(predicted), np.log(found))[0, 1] > 0.8


def test_a_frontier_goes_from_close_to_cheap_within_its_limits(frontier: Frontier) -> None:
    energies = [point.found["energy"] for point in frontier]
    assert energies == sorted(energies, reverse=True)
    assert [point.noise for point in frontier] == sorted(point.noise for point in frontier)
    assert all(point.snr_db >= 8 for point in frontier)
    assert energies[-1] < 0.5 * frontier.original["energy"]
    assert "of the energy" in repr(frontier)


def test_the_best_of_a_frontier_keeps_what_is_stated(frontier: Frontier) -> None:
    cheap = frontier.best(min_snr=15)
    assert cheap.snr_db >= 15
    assert all(point.found["energy"] >= cheap.found["energy"] for point in frontier if point.snr_db >= 15)
    most = 0.5 * frontier.original["energy"]
    close = frontier.best(energy=most)
    assert close.noise == min(point.noise for point in frontier if point.found["energy"] <= most)
    with pytest.raises(LimitError, match=r"keeps 90 dB and energy of 1\.00 pJ"):
        frontier.best(min_snr=90, energy=1e-12)


def test_no_uniform_variant_written_by_hand_beats_the_frontier(cnn: Model, study: Study) -> None:
    found = find(cnn, SEARCH.model_copy(update={"evaluations": 12}), "accuracy")
    pruned = PruneChannels(ratio=0.25, scope="local", repair=True)
    for passes in ([pruned, Int8Static()], [Int8Static()], [pruned]):
        model = compress.Pipeline(passes)(study._base.model)
        energy = compress.estimate(model, "stm32u575", shapes={"x": (1, 3, 12, 12)}).total.energy_joules
        noise = study.noise(model)
        beaten = [point for point in found if energy <= point.found["energy"] and noise < 0.8 * point.noise]
        assert not beaten, f"{passes}: {energy:.3g} J, {noise:.3g}"


def test_a_plan_pasted_into_the_pass_makes_the_same_file(
    cnn: Model, frontier: Frontier, tmp_path: Path
) -> None:
    point = frontier[len(frontier) // 2]
    point.save(tmp_path / "searched.onnx")
    PerLayer(**point.plan)(cnn).save(tmp_path / "pasted.onnx")
    assert (tmp_path / "searched.onnx").read_bytes() == (tmp_path / "pasted.onnx").read_bytes()


def test_labels_tell_how_much_the_metric_drops(cnn: Model) -> None:
    found = search(cnn, hardware="stm32u575", max_drop="10%", evaluations=6, choices=["bits"])
    assert all(point.drop is not None and point.drop <= 0.1 for point in found)
    assert all("channels" not in point.plan for point in found)
    assert found.best(drop=0.05).found["energy"] < found.original["energy"]


def test_a_limit_on_another_cost_is_kept(cnn: Model) -> None:
    found = search(cnn, minimise="macs", hardware="stm32u575", limits={"flash": "40%"}, evaluations=4)
    assert all(point.found["flash"] <= 0.4 * found.original["flash"] for point in found)


@pytest.mark.parametrize("stopped_at", [1, 3, 8, 9])
def test_a_search_that_was_stopped_goes_on_to_the_same_frontier(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
) -> None:
    asked: list[str] = []
    once = Journal.once

    def stopping(self: Journal, question: str, work_out: Any) -> Any:
        def working() -> Any:
            if len(asked) == stopped_at:
                raise KeyboardInterrupt
            asked.append(question)
            return work_out()

        return once(self, question, working)

    wanted = SEARCH.model_copy(update={"evaluations": 3, "choices": ("bits",)})
    unstopped = find(cnn, wanted, "accuracy")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "once", stopping)
        with pytest.raises(KeyboardInterrupt):
            find(cnn, wanted, "accuracy", tmp_path / "journal.jsonl")
    resumed = find(cnn, wanted, "accuracy", tmp_path / "journal.jsonl")
    assert resumed.score() == unstopped.score()


def test_a_model_of_16_bits_keeps_its_interface(cnn: Model) -> None:
    proto = ir.to_proto(cnn.ir)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del proto.graph.value_info[:]
    for weight in proto.graph.initializer:
        content = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(content, weight.name))
    images = [feeds["x"].astype(np.float16) for feeds in cnn.batches()]
    halves = compress.load(proto, calibration=images)
    found = search(halves, hardware="stm32u575", evaluations=3, choices=["bits"])
    assert found[0].snr_db > 25
    assert found.share(found[-1]) < 0.7
    ends = [(each.dtype, each.shape) for each in (*halves.graph.inputs, *halves.graph.outputs)]
    small = found[-1].model
    assert ends == [(each.dtype, each.shape) for each in (*small.graph.inputs, *small.graph.outputs)]


def test_an_unreachable_limit_is_told_with_what_is_reachable(cnn: Model) -> None:
    with pytest.raises(LimitError, match=r"stm32u575: flash: .* at least, .* allowed"):
        search(cnn, hardware="stm32u575", limits={"flash": "1 B"}, choices=["bits"])
    with pytest.raises(LimitError, match=r"none of \d variants keeps the limits; the closest"):
        search(cnn, hardware="stm32u575", limits={"ram": "1 B"}, choices=["bits"], evaluations=2)


def test_limits_on_costs_alone_lead_as_far_as_they_must(cnn: Model) -> None:
    found = search(cnn, hardware="stm32u575", limits={"macs": "10%"}, choices=["channels"], evaluations=2)
    assert all(point.found["macs"] <= 0.1 * found.original["macs"] for point in found)
    with pytest.raises(LimitError, match=r"no variant keeps all limits on stm32u575: .* dB at best"):
        search(cnn, hardware="stm32u575", limits={"macs": "10%"}, min_snr=40, choices=["channels"])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"limits": {"flash": "3 J"}}, "'J' is not a unit of flash"),
        ({"limits": {"flsh": "3 kB"}}, "flsh"),
        ({"minimise": "joules"}, "minimise"),
        ({"choices": ["ranks"]}, "choices"),
        ({"max_drop": "little"}, "not a limit"),
        ({"evaluations": 0}, "evaluations"),
        ({"max_drop": 0.1, "metric": "bleu"}, "not of 'bleu'"),
    ],
)
def test_wrong_settings_are_refused(cnn: Model, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        search(cnn, **settings)


def test_without_data_or_labels_nothing_can_be_measured(cnn: Model) -> None:
    with pytest.raises(DataError, match="needs calibration data"):
        search(Model(cnn.ir))
    bare = compress.load(ir.to_proto(cnn.ir), calibration=[*cnn.batches()])
    with pytest.raises(DataError, match="label"):
        search(bare, max_drop=0.1, hardware="stm32u575")


def test_what_is_found_is_fine_tuned_between_pruning_and_quantization(cnn: Model) -> None:
    settings = {"epochs": 8, "distill": "mse", "learning_rate": 0.01}
    found = search(
        cnn, hardware="stm32u575", min_snr=8, evaluations=5, choices=["channels"], finetune=settings
    )
    point = found[-1]
    assert point.passes == [{"per-layer": point.plan}, {"finetune": settings}]
    trained = [each.layer for each in point.model.changes if each.by == "finetune" and each.action]
    assert {"w1", "w2"} <= set(trained)
    both = Search(finetune=settings).steps({"channels": {"first": 0.5}, "weights": {"head": 8}})
    assert [next(iter(each)) for each in both] == ["per-layer", "finetune", "per-layer"]
    assert not PerLayer(weights={"head": 8}).leaves_float()
    assert PerLayer(channels={"first": 0.5}).leaves_float()
    with pytest.raises(InputError, match="epoch"):
        search(cnn, hardware="stm32u575", finetune={"epoch": 2})
