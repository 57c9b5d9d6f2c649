"""Solvers that read calibration data: what they share, what they reach, where they give way to rounding."""

import numpy as np
import pytest

import compress
from compress.errors import DataError, PassError
from compress.passes import Int4Weights
from compress.quantize import solvers as weight_solvers

# ruff: noqa: E501  (a graph a line)
FORMS = {
    "matmul": "g (float[N,64] x) => (float[N,48] y) { y = MatMul(x, w) }",
    "transposed": "g (float[N,64] x) => (float[N,48] y) { t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }",
    "gemm": "g (float[N,64] x) => (float[N,48] y) { y = Gemm<transB=1>(x, w) }",
    "three layers": "g (float[N,64] x) => (float[N,48] y) { a = MatMul(x, w) b = MatMul(x, v) c = MatMul(x, u) d = Mul(a, b) y = Add(d, c) }",
    "one for a channel": "g (float[N,16,6,6] x) => (float[N,48,4,4] y) { y = Conv(x, w) }",
    "groups in a convolution": "g (float[N,64,6,6] x) => (float[N,48,2,2] y) { y = Conv<pads=[1,1,0,0],strides=[2,2],dilations=[2,2]>(x, w) }",
}
SIZES = {
    "matmul": (64, 48),
    "three layers": (64, 48),
    "one for a channel": (48, 16, 3, 3),
    "groups in a convolution": (48, 64, 3, 3),
}


def correlated(normal, text, rows=256):
    """Return inputs of a graph whose features depend on one another, a few of them large."""
    channels = int(text.split("x)")[0].split("[N,")[1].split("]")[0].split(",")[0])
    basis = normal(channels, channels) * np.geomspace(0.05, 1, channels, dtype=np.float32)
    basis[:, ::16] *= 8
    if "6,6" in text:
        return np.moveaxis(normal(2 * rows, 6, 6, channels) @ basis, -1, 1)
    return normal(4 * rows, channels) @ basis


def output_error(model, small, x):
    expected, found = model.run({"x": x})[0], small.run({"x": x})[0]
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def loaded(build, normal, form):
    x = correlated(normal, FORMS[form])
    weights = {name: normal(*SIZES.get(form, (48, 64))) for name in "wvu" if f", {name})" in FORMS[form]}
    if form == "transposed":
        weights = {"w": normal(48, 64)}
    return compress.load(build(FORMS[form], **weights), calibration=[{"x": x[::2]}]), x[1::2]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_gptq_beats_rounding_on_inputs_not_seen(build, normal, form, symmetric):
    model, x = loaded(build, normal, form)
    plain, solved = (
        Int4Weights(solver=solver, symmetric=symmetric, operators="standard")(model)
        for solver in ("rtn", None)
    )
    assert all(change.action.endswith("gptq") for change in solved.changes), solved.changes
    assert output_error(model, solved, x) < 0.8 * output_error(model, plain, x)


@pytest.mark.parametrize("form", ["matmul", "transposed", "gemm", "three layers"])
def test_awq_divides_inputs_once_and_loses_less(build, normal, form):
    model, x = loaded(build, normal, form)
    plain, solved = (Int4Weights(solver=solver, operators="standard")(model) for solver in ("rtn", "awq"))
    assert len([node for node in solved.graph if node.name.endswith("unscale")]) == 1
    assert output_error(model, solved, x) < 0.95 * output_error(model, plain, x)


def test_layers_of_one_input_share_their_moments(build, normal, monkeypatch):
    model, _ = loaded(build, normal, "three layers")
    asked = []
    original = weight_solvers._moments
    monkeypatch.setattr(
        weight_solvers,
        "_moments",
        lambda layer, before, now: asked.append(layer.name) or original(layer, before, now),
    )
    Int4Weights()(model)
    assert len(asked) == 1


def test_depthwise_and_small_layers_stay_in_eight_bits(build, normal):
    text = "g (float[N,32,6,6] x) => (float[N,48,4,4] y) { [deep] d = Conv<group=32,pads=[1,1,1,1]>(x, w) [wide] y = Conv(d, v) }"
    model = compress.load(
        build(text, w=normal(32, 1, 3, 3), v=normal(48, 32, 3, 3)), calibration=[normal(64, 32, 6, 6)]
    )
    actions = {change.layer: change.action for change in Int4Weights()(model).changes}
    assert actions["deep"] == "8-bit weights, per channel, float once loaded, rounded"
    assert actions["wide"] == "4-bit weights, per channel, float once loaded, gptq"


@pytest.mark.parametrize(("rows", "solver"), [(0, "rounded"), (32, "rounded"), (64, "gptq")])
def test_a_layer_that_saw_too_few_inputs_is_rounded_and_says_so(build, normal, rows, solver):
    text = "g (float[N,64] x, bool[N] keep) => (float[M,48] y) { k = Compress<axis=0>(x, keep) y = MatMul(k, w) }"
    batch = {"x": normal(64, 64), "keep": np.arange(64) < rows}
    small = Int4Weights()(compress.load(build(text, w=normal(64, 48)), calibration=[batch]))
    assert small.changes[-1].action.endswith(solver)


def test_a_layer_of_too_many_features_for_memory_is_rounded(build, normal, monkeypatch):
    model, _ = loaded(build, normal, "matmul")
    monkeypatch.setattr(weight_solvers, "MOST_MOMENTS", 64 * 64 - 1)
    assert Int4Weights()(model).changes[-1].action.endswith("rounded")


def test_a_solver_that_needs_data_says_so(build, normal):
    model = compress.load(build(FORMS["matmul"], w=normal(64, 48)))
    assert Int4Weights()(model).changes[-1].action.endswith("rounded")
    assert Int4Weights(solver="hqq")(model).changes[-1].action.endswith("hqq")
    for solver in ("gptq", "awq"):
        with pytest.raises(DataError, match="needs calibration data"):
            Int4Weights(solver=solver)(model)


@pytest.mark.parametrize("solver", ["gptq", "awq"])
def test_what_is_not_finite_names_the_layer(build, normal, solver):
    text = "g (float[N,64] x) => (float[N,48] y) { [bad] y = MatMul(x, w) }"
    weight, x = normal(64, 48), normal(96, 64)
    huge = compress.load(build(text, w=weight), calibration=[x * np.float32(1e25)])
    with pytest.raises(PassError, match=r"layer 'bad', weight 'w': value (nan|inf) at index"):
        Int4Weights(solver=solver)(huge)
    weight = weight.copy()
    weight[3, 4] = np.nan
    left = Int4Weights(solver=solver)(compress.load(build(text, w=weight), calibration=[x])).changes[0]
    assert (left.layer, left.action) == ("bad", "") and "NaN" in left.skipped


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_gptq_reads_the_states_of_recurrent_layers(build, normal, kind, direction):
    gates, ways = {"GRU": 3, "LSTM": 4, "RNN": 1}[kind], 1 + (direction == "bidirectional")
    text = f"g (float[T,N,64] x) => (float[T,{ways},N,64] y) {{ y = {kind}<hidden_size=64,direction='{direction}'>(x, w, r) }}"
    basis = normal(64, 64) * np.geomspace(0.2, 1, 64, dtype=np.float32)
    x = (normal(2 * 64 * 8, 64) @ basis).reshape(64, 16, 64)
    weights = [normal(ways, gates * 64, 64) / 8 for _ in range(2)]
    text = text.replace("'", '"')
    model = compress.load(build(text, w=weights[0], r=weights[1]), calibration=[{"x": x[:, ::2]}])
    plain, solved = (Int4Weights(solver=solver)(model) for solver in ("rtn", "gptq"))
    assert [change.action.split(", ")[-1] for change in solved.changes] == ["gptq", "gptq"]
    assert output_error(model, solved, x[:, 1::2]) < 0.9 * output_error(model, plain, x[:, 1::2])


def test_gptq_takes_the_groups_of_a_convolution_one_by_one(build, normal):
    text = "g (float[N,64,6,6] x) => (float[N,48,4,4] y) { y = Conv<group=2>(x, w) }"
    x = correlated(normal, text)
    model = compress.load(build(text, w=normal(48, 32, 3, 3)), calibration=[{"x": x[::2]}])
    plain, solved = (Int4Weights(solver=solver)(model) for solver in ("rtn", "gptq"))
    assert solved.changes[-1].action.endswith("gptq")
    assert output_error(model, solved, x[1::2]) < 0.8 * output_error(model, plain, x[1::2])


def test_a_table_that_classifies_too_is_fitted_to_what_the_classifier_reads(build, normal):
    text = "g (int64[N] i, float[N,64] x) => (float[N,96] y) { e = Gather(w, i) h = Add(e, x) t = Transpose<perm=[1,0]>(w) y = MatMul(h, t) }"
    x = 8 * normal(256, 64) @ (normal(64, 64) * np.geomspace(0.02, 1, 64, dtype=np.float32))
    batches = [{"i": np.arange(128) % 96, "x": x[start : start + 128]} for start in (0, 128)]
    model = compress.load(build(text, w=normal(96, 64)), calibration=batches[:1])
    plain, solved = (Int4Weights(embedding_bits=4, solver=solver)(model) for solver in ("rtn", "gptq"))
    assert (
        solved.changes[-1].action == "4-bit weights, groups of 32, GatherBlockQuantized and MatMulNBits, gptq"
    )
    expected, *found = (each.run(batches[1])[0] for each in (model, plain, solved))
    losses = [np.linalg.norm(each - expected) for each in found]
    assert losses[1] < 0.9 * losses[0]
