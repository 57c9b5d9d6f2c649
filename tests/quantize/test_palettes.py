"""Palettes in a graph: the runtime computes what the codes and codebooks say, for every kind of layer."""

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import compress
from compress.diagnose.metrics import measure
from compress.estimator import estimate
from compress.estimator.workload import WorkloadReader
from compress.graph.session import session
from compress.graph.shapes import lay_out
from compress.passes import Finetune, Palettize, Sparsify


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


LINEAR = "g (float[N,48] x) => (float[N,36] y) { y = MatMul(x, w) }"


@pytest.mark.parametrize("lookup", ["at-load", "at-run"])
@pytest.mark.parametrize("entries", [3, 4, 16, 256])
@pytest.mark.parametrize(("dimensions", "channels"), [(1, None), (4, None), (1, 1), (3, 5)])
def test_the_runtime_restores_what_the_change_says(build, normal, lookup, entries, dimensions, channels):
    weight = normal(48, 36)
    small = Palettize(entries=entries, dimensions=dimensions, channels=channels, lookup=lookup)(
        compress.load(build(LINEAR, w=weight))
    )
    change = small.changes[0]
    if change.skipped:
        assert "would take more bytes than the weight" in change.skipped
        return
    onnx.checker.check_model(ir.to_proto(small.ir))
    restored = small.run({"x": np.eye(48, dtype=np.float32)})[0]
    assert distance(restored, weight) == pytest.approx(change.error, rel=1e-4, abs=1e-6)
    if dimensions == 1:
        shared = restored.reshape(1, -1) if channels is None else restored.T
        assert all(len(np.unique(row)) <= entries for row in shared)
    stored = sum(value.const_value.nbytes for value in small.graph.initializers.values())
    assert change.bytes_after <= stored <= change.bytes_after + 300


@pytest.mark.parametrize("chosen", [Palettize(), Palettize(entries=64, dimensions=2)])
def test_every_layer_of_every_model(small_model, chosen):
    small = chosen(small_model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    feeds = next(small_model.batches())
    assert distance(small.run(feeds)[0], small_model.run(feeds)[0]) < 0.5
    assert [change for change in small.changes if change.action]
    assert small.weight_bytes < 0.6 * small_model.weight_bytes


def test_four_entries_take_two_bits(build, normal):
    model = compress.load(build(LINEAR, w=normal(48, 36)))
    sizes = [Palettize(entries=entries)(model).changes[0].bytes_after for entries in (4, 16, 256)]
    weights = 48 * 36
    assert sizes == [weights // 4 + 16, weights // 2 + 64, weights + 1024]


def test_embeddings_stay_codes(build, normal):
    table = normal(500, 24)
    text = "g (int64[N,M] i) => (float[N,M,24] y) { y = Gather(w, i) }"
    model = compress.load(build(text, w=table))
    for dimensions in (1, 4):
        small = Palettize(entries=256, dimensions=dimensions)(model)
        assert "at every run" in small.changes[0].action
        ids = np.array([[0, 7], [-1, 499]])
        assert distance(small.run({"i": ids})[0], table[ids]) == pytest.approx(
            small.changes[0].error, rel=0.4
        )


# ruff: noqa: E501  (a graph a line)
SHARED = {
    "embedding and classifier": "g (int64[N] i) => (float[N,60] y) { e = Gather(w, i) t = Transpose<perm=[1,0]>(w) y = MatMul(e, t) }",
    "two embeddings": "g (int64[N] i) => (float[N,48] y) { e = Gather(w, i) f = Gather(w, i) y = Add(e, f) }",
    "read by arithmetic": "g (int64[N] i) => (float[N,48] y) { e = Gather(w, i) s = ReduceSum<keepdims=0>(w) y = Add(e, s) }",
}


@pytest.mark.parametrize("text", SHARED.values(), ids=SHARED)
def test_shared_weights_are_stored_once(build, normal, text):
    model = compress.load(build(text, w=normal(60, 48)))
    small = Palettize(entries=256)(model)
    ids = np.array([3, 59, 0])
    assert distance(small.run({"i": ids})[0], model.run({"i": ids})[0]) < 0.1
    assert small.weight_bytes < 0.4 * model.weight_bytes


@pytest.mark.parametrize("group", [1, 2, 8])
@pytest.mark.parametrize("channels", [None, 2])
def test_convolutions_in_groups(build, normal, group, channels):
    text = f"g (float[N,8,9,9] x) => (float[N,8,7,7] y) {{ y = Conv<group={group}>(x, w) }}"
    model = compress.load(build(text, w=normal(8, 8 // group, 3, 3)), calibration=[{"x": normal(4, 8, 9, 9)}])
    small = Palettize(entries=8, channels=channels, dimensions=3)(model)
    assert distance(small.run(next(model.batches()))[0], model.run(next(model.batches()))[0]) < 0.7


def test_weights_in_constant_nodes(build, normal):
    proto = build("g (float[N,48] x) => (float[N,36] y) { y = MatMul(x, w) }", w=normal(48, 36))
    tensor = proto.graph.initializer.pop()
    proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=tensor))
    small = Palettize()(compress.load(proto))
    assert small.changes[0].bytes_after == 48 * 36 // 2 + 64


def test_importance_comes_from_calibration_data(build, normal):
    weight, inputs = normal(48, 36), normal(500, 48)
    inputs[:, 5:] *= 0.05
    plain, weighted = (
        Palettize(entries=8)(compress.load(build(LINEAR, w=weight), calibration=data))
        for data in (None, [{"x": inputs}])
    )
    assert distance(weighted.run({"x": inputs})[0], inputs @ weight) < 0.9 * distance(
        plain.run({"x": inputs})[0], inputs @ weight
    )


def test_finetuning_trains_the_entries_and_keeps_zeros(digits):
    def score(model):
        return measure("accuracy", model.run, model.run, model.evaluation.batches(model.graph.inputs))

    rough = Palettize(entries=3)(Sparsify(ratio=0.6, solver="magnitude")(digits))
    tuned = Finetune(epochs=2, distill=True, learning_rate=0.002)(rough)
    books = {
        name: value.const_value.numpy()
        for name, value in tuned.graph.initializers.items()
        if name.endswith(".codebook")
    }
    before = {name: rough.graph.initializers[name].const_value.numpy() for name in books}
    assert all(not np.array_equal(book, before[name]) for name, book in books.items())
    assert all(((book == 0) == (before[name] == 0)).all() for name, book in books.items())
    assert sum((book == 0).sum() for book in books.values()) >= 3
    assert score(tuned) > score(rough)
    assert tuned.weight_bytes == rough.weight_bytes


def test_the_estimator_reads_codes_and_codebooks(build, normal):
    model = compress.load(build(LINEAR, w=normal(48, 36)))
    for settings, bits in (({"entries": 4}, 2), ({"entries": 16}, 4), ({"entries": 256, "dimensions": 4}, 2)):
        small = Palettize(**settings)(model)
        (layer,) = WorkloadReader(small.ir, lay_out(small.ir, {"x": (1, 48)})).layers()
        codes = sum(
            v.const_value.nbytes for n, v in small.graph.initializers.items() if "codes" in n or "book" in n
        )
        assert codes <= layer.weight.bytes <= codes + 100
        assert layer.weight.bits == bits
        assert layer.number.kind == "float"
        assert layer.weight.encoded
    assert estimate(small, "eyeriss-v1", shapes={"x": (1, 48)}).total.dram_bytes > 0


def test_the_runtime_folds_the_lookup_or_keeps_the_codes(build, normal, tmp_path):
    model = compress.load(build(LINEAR, w=normal(48, 36)))
    for lookup, kept in (("at-load", False), ("at-run", True)):
        session(Palettize(lookup=lookup)(model).ir, optimized_to=tmp_path / "seen.onnx")
        operators = {node.op_type for node in onnx.load(tmp_path / "seen.onnx").graph.node}
        assert ("Gather" in operators) is kept


def test_tiny_layers_and_equal_weights(build, normal):
    text = "g (float[N,3] x) => (float[N,2] y) { y = MatMul(x, w) }"
    assert Palettize()(compress.load(build(text, w=normal(3, 2)))).changes[0].skipped
    constant = np.full((48, 36), 0.25, np.float32)
    same = Palettize()(compress.load(build(LINEAR, w=constant)))
    np.testing.assert_allclose(same.run({"x": np.eye(48, dtype=np.float32)})[0], constant)
    assert same.changes[0].error == pytest.approx(0)


def test_a_weight_that_is_not_finite_stays_with_a_record(build, normal):
    weight = normal(48, 36)
    weight[3, 4] = math.nan
    text = LINEAR.replace("y = MatMul", "[bad] y = MatMul")
    left = Palettize()(compress.load(build(text, w=weight))).changes[0]
    assert (left.layer, left.action) == ("bad", "") and "NaN" in left.skipped
