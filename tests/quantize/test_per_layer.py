"""per-layer: files by plan equal to what other passes make, mixed ones, and what is refused."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from pydantic import ValidationError

import compress
from compress.cpu import weight_bits
from compress.errors import DataError, PassError
from compress.graph.layers import layers
from compress.passes import Int8Static, PerLayer, PruneChannels
from compress.prune.shares import Channels
from compress.quantize.static import TRIED

WIDTH = 32
"""Of the transformer, which has two heads."""

CNN = """g (float[N,3,8,8] x) => (float[N,5] y) {
    [conv1] a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a)
    [conv2] c = Conv<pads=[1,1,1,1]>(r, w2, b2) s = Add(r, c) t = Relu(s)
    [conv3] d = Conv(t, w3) u = Relu(d)
    p = GlobalAveragePool(u) f = Flatten(p) [fc] y = Gemm(f, w4, b4)
}"""
LAYERS = ("conv1", "conv2", "conv3", "fc")


@pytest.fixture
def cnn(build, normal, monkeypatch):
    monkeypatch.setattr("compress.quantize.groundwork.TRIED", TRIED[:1])  # five take seconds
    weights = {"w1": normal(16, 3, 3, 3), "w2": normal(16, 16, 3, 3) / 8, "w3": normal(12, 16, 3, 3) / 8}
    others = {"b1": normal(16), "b2": normal(16), "w4": normal(12, 5) / 4, "b4": normal(5)}
    data = [normal(8, 3, 8, 8) for _ in range(3)]
    return compress.load(build(CNN, **weights, **others), calibration=data)


def noise(small, model):
    feeds = next(model.batches())
    found, wanted = small.run(feeds)[0], model.run(feeds)[0]
    return float(np.sum((found - wanted) ** 2) / np.sum(wanted**2))


def types(model):
    onnx.checker.check_model(ir.to_proto(model.ir))
    found = {name: value.dtype.name for name, value in model.graph.initializers.items()}
    return {
        name.partition(".")[0]: kind
        for name, kind in found.items()
        if name.endswith((".quantized", ".float16"))
    }


def test_a_uniform_plan_is_pruning_and_static_quantization(cnn, monkeypatch):
    monkeypatch.setattr("compress.quantize.groundwork.TRIED", TRIED)
    bits = weight_bits("auto")
    plan = PerLayer(
        channels={"conv1": 0.5, "conv3": 0.5}, weights=dict.fromkeys(LAYERS, bits), activations=LAYERS
    )
    pruned = PruneChannels(ratio=0.5, scope="local", repair=True)(cnn)
    feeds = next(cnn.batches())
    np.testing.assert_array_equal(
        plan(cnn).run(feeds)[0], Int8Static(rounding="gptq", weight_bits=bits)(pruned).run(feeds)[0]
    )


def test_every_layer_gets_its_own(cnn, running):
    plan = PerLayer(
        channels={"conv3": 0.75},
        weights={"conv1": 8, "conv2": 4, "conv3": 3, "fc": 16},
        activations=["conv1", "conv2"],
    )
    small = plan(cnn)
    weights = {"w1": "INT8", "w2": "INT4", "w3": "INT4", "w4": "FLOAT16"}
    assert types(small) == weights | {"b1": "INT32", "b2": "INT32", "b4": "FLOAT16"}
    assert tuple(small.graph.initializers["w3.quantized"].shape) == (9, 16, 3, 3)
    assert np.ptp(small.graph.initializers["w3.quantized"].const_value.numpy().astype(int)) <= 6
    told = {change.layer: change.action for change in small.changes if change.action}
    assert told["conv1"].startswith("8-bit activations, 8-bit weights per channel, range ")
    assert told["conv2"].endswith(", in float in ONNX Runtime")
    assert "3-bit weights stored in 4" in told["conv3"]
    assert "QLinearConv" in running(small)
    assert noise(small, cnn) < 0.2


def test_codes_lie_around_four_bit_weights_too(cnn):
    """The runtime computes the layer in float, and no pair of Q and DQ is lost for it."""
    small = PerLayer(weights=dict.fromkeys(LAYERS, 4), activations=LAYERS)(cnn)
    for layer in ("conv1", "conv2", "conv3", "fc"):
        node = next(node for node in small.graph if node.name == layer)
        assert [each.producer().op_type for each in node.inputs[:2]] == ["DequantizeLinear"] * 2
    wide = PerLayer(weights=dict.fromkeys(LAYERS, 8), activations=LAYERS)(cnn)
    assert small.weight_bytes < 0.7 * wide.weight_bytes


def test_the_estimator_sees_integers_of_each_width(cnn):
    read = {}
    for bits, codes in ((16, ()), (8, ()), (4, ()), (8, LAYERS), (4, LAYERS)):
        plan = PerLayer(weights=dict.fromkeys(LAYERS, bits), activations=codes)
        total = compress.estimate(plan(cnn), hardware="h100").total
        read[bits, bool(codes)] = total.dram_weight_bytes
    assert read[4, True] == pytest.approx(read[4, False], rel=0.2)
    assert read[4, False] < 0.7 * read[8, False] < 0.7 * 0.7 * read[16, False]


@pytest.mark.parametrize("name", ["recurrent", "transformer"])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_other_networks_run_at_every_width(name, bits, request, running):
    model = request.getfixturevalue(name)
    weights = {layer.name: bits for layer in layers(model.prepared().graph)}
    small = PerLayer(weights=weights)(model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    assert small.weight_bytes < {2: 0.25, 4: 0.25, 8: 0.4, 16: 0.6}[bits] * model.weight_bytes
    assert noise(small, model) < {2: 1.5, 4: 0.1, 8: 1e-3, 16: 1e-5}[bits]


def test_heads_and_integers_of_a_transformer(transformer, running):
    found = [layer for layer in layers(transformer.prepared().graph) if layer.node.op_type != "Gather"]
    linear = [layer.name for layer in found if len(layer.weight.uses()) == 1]
    heads = next(name for name in Channels(transformer.prepared()).groups if "(heads)" in name)
    small = PerLayer(channels={heads: 0.5}, weights=dict.fromkeys(linear, 7), activations=linear)(transformer)
    assert "MatMulIntegerToFloat" in " ".join(running(small))
    query = next(name for name in small.graph.initializers if name.endswith("query.weight.quantized"))
    assert WIDTH // 2 in small.graph.initializers[query].shape


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({}, "the plan is empty"),
        ({"weights": {"conv": 8}}, "weights: no layer with weights is called 'conv'; did you mean 'conv"),
        ({"channels": {"con1": 0.5}}, "no coupling group is called 'con1'; did you mean 'conv1'"),
        ({"channels": {"fc": 0.5}}, "'fc' keeps its channels: it is a dimension of a graph output"),
        ({"weights": {"fc": 8}, "activations": ["conv1"]}, "'conv1' multiplies integers only if its weights"),
        ({"weights": {"fc": 16}, "activations": ["fc"]}, "'fc' multiplies integers only if its weights"),
        ({"weights": {"fc": 8}, "activations": ["f"]}, "activations: no layer with weights is called 'f'"),
        (
            {"weights": {"fc": 8}, "exclude": ["fc"]},
            "'fc' is in the plan, and left out by include or exclude",
        ),
    ],
)
def test_plans_that_cannot_be(cnn, plan, message):
    with pytest.raises(PassError, match=message):
        PerLayer(**plan)(cnn)


def test_settings_are_checked():
    for wrong in ({"weights": {"a": 9}}, {"channels": {"a": 0}}, {"channels": {"a": 1.5}}):
        with pytest.raises(ValidationError):
            PerLayer(**wrong)
    made = PerLayer(channels={"a": 0.5}, weights={"b": 4}, activations=["b"])
    assert repr(made) == "per-layer: {channels: {'a': 0.5}, weights: {'b': 4}, activations: ['b']}"


def test_layers_that_cannot_become_what_is_asked(recurrent, build, normal):
    names = {layer.node.op_type: layer.name for layer in layers(recurrent.prepared().graph)}
    with pytest.raises(PassError, match=r"cannot multiply integers: .*GRU has no integer kernel"):
        PerLayer(weights={names["GRU"]: 8}, activations=[names["GRU"]])(recurrent)
    shared = "g (float[N,8] x) => (float[N,8] y) { [one] a = MatMul(x, w) [two] y = MatMul(a, w) }"
    model = compress.load(build(shared, w=normal(8, 8)), calibration=[normal(16, 8)])
    with pytest.raises(PassError, match="'two' asks for 8 bits, and another layer for 4 bits"):
        PerLayer(weights={"one": 4, "two": 8})(model)
    with pytest.raises(PassError, match="'one' cannot multiply integers: shared with another layer"):
        PerLayer(weights={"one": 8}, activations=["one"])(model)
    big = "g (float[N,8] x) => (float[N,8] y) { [big] y = MatMul(x, w) }"
    huge = compress.load(build(big, w=normal(8, 8) * 1e6))
    with pytest.raises(PassError, match="'w' cannot be float16: would lose too much"):
        PerLayer(weights={"big": 16})(huge)
    with pytest.raises(DataError, match="calibration data"):
        PerLayer(weights={"big": 8}, activations=["big"])(huge)
    assert PerLayer(weights={"big": 8})(huge).changes[0].action, (
        "without data, they are rounded to the nearest"
    )
