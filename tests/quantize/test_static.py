"""int8-static: which integer kernels run, and how far their results are from float."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import compress
from compress.cpu import saturates
from compress.diagnose.metrics import measure
from compress.errors import DataError
from compress.passes import Int8Static


def distance(found, expected):
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)


# ruff: noqa: E501  (a graph a line)
RESIDUAL = """g (float[N,4,6,6] x) => (float[N,5] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a)
    c = Conv<pads=[1,1,1,1]>(r, w2, b1) s = Add(r, c) t = Relu(s)
    p = GlobalAveragePool(t) f = Flatten(p) y = Gemm(f, w3, b3)
}"""


def test_a_residual_network_runs_in_integers_from_end_to_end(build, normal, running):
    weights = {"w1": normal(8, 4, 3, 3), "w2": normal(8, 8, 3, 3), "b1": normal(8)}
    x = normal(4, 4, 6, 6)
    model = compress.load(build(RESIDUAL, **weights, w3=normal(8, 5), b3=normal(5)), calibration=[{"x": x}])
    small = Int8Static()(model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    kernels = running(small)
    assert kernels.count("QLinearConv") == 2
    assert {"QLinearAdd", "QGemm"} <= set(kernels)
    assert not {"Conv", "Gemm", "Add"} & set(kernels)
    for rows in (1, 4):
        assert distance(small.run({"x": x[:rows]})[0], model.run({"x": x[:rows]})[0]) < 0.05
    biases = [name for name in small.graph.initializers if name.startswith("b1.quantized")]
    assert all(small.graph.initializers[name].dtype == ir.DataType.INT32 for name in biases)
    assert len(biases) == 2, "a bias that two layers share has steps of its own in each"


def test_pooling_before_an_integer_layer_moves_integers(build, normal, running):
    """A float value that only pooling and transposing bring to a layer is quantized before them."""
    text = """g (float[N,4,8,8] x) => (float[N,6,2,2] y) {
        s = Sigmoid(x) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s) c = Conv(p, w) y = Relu(c)
    }"""
    model = compress.load(build(text, w=normal(6, 4, 3, 3)), calibration=[{"x": normal(3, 4, 8, 8)}])
    small = Int8Static()(model)
    pool = next(node for node in small.graph if node.op_type == "MaxPool")
    assert pool.inputs[0].producer().op_type == "DequantizeLinear"
    assert "QLinearConv" in running(small)
    feeds = next(model.batches())
    assert distance(small.run(feeds)[0], model.run(feeds)[0]) < 0.03


def test_linear_layers_keep_float_outputs(build, normal, running):
    model = compress.load(
        build("g (float[N,T,32] x) => (float[N,T,16] y) { y = MatMul(x, w) }", w=normal(32, 16)),
        calibration=[{"x": normal(2, 3, 32)}],
    )
    assert "MatMulIntegerToFloat" in " ".join(running(Int8Static()(model)))


@pytest.mark.parametrize("scale", [1.0, 1e-5, 0.0])
@pytest.mark.parametrize("with_bias", [True, False])
def test_dead_channels_and_constant_activations(build, normal, scale, with_bias):
    weight = normal(8, 4, 3, 3)
    weight[0], weight[1], weight[2] = 0, 1e-30, 1e-12
    bias = normal(8) * with_bias
    text = "g (float[N,4,6,6] x) => (float[N,8,6,6] y) { h = Conv<pads=[1,1,1,1]>(x, w, b) y = Relu(h) }"
    x = normal(2, 4, 6, 6) * np.float32(scale)
    model = compress.load(build(text, w=weight, b=bias), calibration=[{"x": x}])
    expected = model.run({"x": x})[0]
    found = Int8Static()(model).run({"x": x})[0]
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() <= 0.03 * max(np.abs(expected).max(), 1e-6)


@pytest.mark.parametrize(
    ("text", "weight", "size"),
    [
        ("g (float[N,8,6,6] x) => (float[N,8,4,4] z) { y = Conv<group=8>(x, w) z = Relu(y) }", (8, 1, 3, 3), (2, 8, 6, 6)),
        ("g (float[N,8,6,6] x) => (float[N,16,4,4] z) { y = Conv<group=4>(x, w) z = Relu(y) }", (16, 2, 3, 3), (2, 8, 6, 6)),
        ("g (float[N,8,9] x) => (float[N,4,7] z) { y = Conv(x, w) z = Relu(y) }", (4, 8, 3), (2, 8, 9)),
        ("g (float[N,4,4,4,4] x) => (float[N,4,2,2,2] z) { y = Conv(x, w) z = Relu(y) }", (4, 4, 3, 3, 3), (2, 4, 4, 4, 4)),
        ("g (float[N,8,4,4] x) => (float[N,4,6,6] z) { y = ConvTranspose(x, w) z = Relu(y) }", (8, 4, 3, 3), (2, 8, 4, 4)),
        ("g (float[32,N] x) => (float[N,16] z) { z = Gemm<transA=1, alpha=0.5>(x, w) }", (32, 16), (32, 2)),
        ("g (float[32] x) => (float[16] z) { z = MatMul(x, w) }", (32, 16), (32,)),
        ("g (float[16,N] x) => (float[8,N] z) { z = MatMul(w, x) }", (8, 16), (16, 2)),
        ("g (float[N,3,32] x) => (float[N,3,16] z) { z = MatMul(x, w) }", (1, 32, 16), (2, 3, 32)),
    ],
    ids=["depthwise", "grouped", "1-D", "3-D", "transposed", "transA", "vector", "constant left", "3-D weight"],
)  # fmt: skip
def test_layers_of_every_shape(build, normal, text, weight, size):
    x = normal(*size)
    model = compress.load(build(text, w=normal(*weight)), calibration=[{"x": x}])
    small = Int8Static()(model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    assert distance(small.run({"x": x})[0], model.run({"x": x})[0]) < 0.03


def test_seven_bits_never_saturate(build):
    """The worst products of U8S8 kernels without VNNI: all weights and inputs at their extremes."""
    text = "g (float[N,64] x) => (float[N,16] y) { y = MatMul(x, w) }"
    model = compress.load(
        build(text, w=np.ones((64, 16), np.float32)), calibration=[{"x": np.ones((2, 64), np.float32)}]
    )
    feeds = {"x": np.ones((2, 64), np.float32)}
    assert distance(Int8Static(weight_bits=7)(model).run(feeds)[0], model.run(feeds)[0]) < 0.01
    if not saturates():
        assert distance(Int8Static(weight_bits=8)(model).run(feeds)[0], model.run(feeds)[0]) < 0.01
    assert distance(Int8Static()(model).run(feeds)[0], model.run(feeds)[0]) < 0.01


def test_outputs_and_old_files(build, normal):
    text = "g (float[N,8,4,4] x, float[8,8,1,1] w) => (float[N,8,4,4] h, float[N,8,4,4] y) { h = Conv(x, w) r = Relu(h) y = Conv(r, v) }"
    proto = build(text, opset=11, ir_version=3, w=normal(8, 8, 1, 1), v=normal(8, 8, 1, 1))
    value = onnx.helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, (8, 8, 1, 1))
    proto.graph.input.append(value)
    x = normal(2, 8, 4, 4)
    model = compress.load(proto, calibration=[{"x": x}])
    small = Int8Static()(model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    for found, expected in zip(small.run({"x": x}), model.run({"x": x}), strict=True):
        assert distance(found, expected) < 0.05
    dead = [
        node.name
        for node in small.graph
        if not any(out.uses() or out.is_graph_output() for out in node.outputs)
    ]
    assert dead == []


def test_activations_that_are_not_finite_are_named(build, normal):
    text = "g (float[N,8] x) => (float[N,8] y) { e = Div(x, z) y = MatMul(e, w) }"
    model = compress.load(build(text, w=normal(8, 8), z=np.float32(0)), calibration=[{"x": normal(2, 8)}])
    with pytest.raises(DataError, match="calibration data, batch 0: activation 'e': NaN or infinite"):
        Int8Static()(model)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_types_of_integers_and_scales(build, normal, bits, symmetric, per_channel):
    weights = {"w1": normal(8, 4, 3, 3), "w2": normal(8, 8, 3, 3), "w3": normal(8, 5)}
    weights["w1"][0] *= 20
    x = normal(4, 4, 6, 6)
    model = compress.load(build(RESIDUAL, **weights, b1=normal(8), b3=normal(5)), calibration=[{"x": x}])
    small = Int8Static(activation_bits=bits, symmetric=symmetric, per_channel=per_channel)(model)
    onnx.checker.check_model(ir.to_proto(small.ir))
    kind = f"{'' if symmetric else 'U'}INT{bits}"
    for node in small.graph:
        if node.op_type == "QuantizeLinear":
            zero_point = node.inputs[2].const_value
            assert zero_point.dtype.name == kind
            assert not symmetric or zero_point.numpy() == 0
    assert small.graph.initializers["w1.scale"].shape == ir.Shape([8] if per_channel else [])
    found, expected = small.run({"x": x})[0], model.run({"x": x})[0]
    reference = onnx.reference.ReferenceEvaluator(ir.to_proto(small.ir)).run(None, {"x": x})[0]
    assert distance(found, reference) < 0.03
    assert distance(found, expected) < (0.06 if bits == 8 else 0.03)


def test_a_moving_average_forgives_a_rare_batch(build, normal):
    """31 batches in [-1, 1] and one a hundred times as large: steps follow the average of the extremes."""
    batches = [{"x": np.clip(normal(8, 16), -1, 1)} for _ in range(32)]
    batches[5]["x"] = batches[5]["x"] * np.float32(100)
    model = compress.load(
        build("g (float[N,16] x) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(16, 4)),
        calibration=batches,
    )
    wide, average = (Int8Static(calibration=each)(model) for each in ("minmax", "moving-average"))
    steps = [float(each.graph.initializers["x.scale"].const_value.numpy()) for each in (wide, average)]
    assert steps[0] == pytest.approx(200 / 255, rel=0.01)
    assert steps[1] == pytest.approx((31 * 2 + 200) / 32 / 255, rel=0.05)


@pytest.mark.parametrize(("heeds", "ends"), [(False, (2, 12)), (True, (99, 101))], ids=["unheard", "heard"])
def test_a_rare_huge_value_is_within_the_range_only_if_the_outputs_need_it(build, normal, heeds, ends):
    """One in a thousand values is 100 times as large as the others, in a channel that is read or not."""
    x, weight = normal(512, 16), normal(16, 4)
    x[::64, 0] = 100
    x[1:, 0] *= np.arange(1, 512) % 64 == 0
    weight[0] *= heeds
    model = compress.load(
        build("g (float[N,16] x) => (float[N,4] y) { y = MatMul(x, w) }", w=weight), calibration=[{"x": x}]
    )
    small = Int8Static()(model)
    scale = float(small.graph.initializers["x.scale"].const_value.numpy())
    zero_point = int(small.graph.initializers["x.zero_point"].const_value.numpy())
    assert ends[0] < scale * (255 - zero_point) < ends[1]


def accuracy(model):
    run = model.run
    return measure("accuracy", run, run, model.evaluation.batches(model.graph.inputs))


@pytest.mark.parametrize("calibration", ["minmax", "moving-average", "percentile", "entropy", "mse"])
def test_digits_keep_their_accuracy(digits, calibration):
    assert accuracy(Int8Static(calibration=calibration)(digits)) >= accuracy(digits) - 0.01
