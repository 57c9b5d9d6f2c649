"""The form every graph is brought to, whatever it came as."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

import compress
from compress.graph.normalise import normalise
from compress.passes import Int8Weights

# ruff: noqa: E501  (a graph a line)
GRAPHS = {
    "transposed": "g (float[N,64] x) => (float[N,48] y) { t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }",
    "transB": "g (float[N,64] x) => (float[N,48] y) { y = Gemm<transB=1>(x, w) }",
    "transpose is an output": (
        "g (float[N,64] x) => (float[N,48] y, float[64,48] t) { t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }"
    ),
    "weight is an output": "g (float[N,64] x) => (float[N,48] y, float[48,64] w) { y = Gemm<transB=1>(x, w) }",
    "duplicate value": (
        "g (float[N,64] x) => (float[N,48] y) { a = Gemm<transB=1>(x, w) b = Gemm<transB=1>(x, w) y = Add(a, b) }"
    ),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_outputs_stay(build, normal, case):
    proto = build(GRAPHS[case], w=normal(48, 64))
    feeds = {"x": normal(2, 64)}
    expected = ort.InferenceSession(proto.SerializeToString()).run(None, feeds)
    model = compress.load(proto).prepared()
    onnx.checker.check_model(ir.to_proto(model.ir))
    for found, wanted in zip(model.run(feeds), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    if case in ("transposed", "transB"):
        assert model.graph.initializers["w"].shape == (64, 48)


def test_names_become_unique(build, normal):
    text = (
        "g (float[N,8] x) => (float[N,8] z) { [same] y = MatMul(x, w) [same] r = Relu(y) z = MatMul(r, w) }"
    )
    names = [node.name for node in compress.load(build(text, w=normal(8, 8))).prepared().graph]
    assert all(names)
    assert len(set(names)) == 3


def test_recurrent_weights_of_torch_stand_in_their_order_under_their_names():
    class Recurrent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(24, 48, bidirectional=True, batch_first=True)

        def forward(self, x):
            return self.gru(x)[0]

    module = Recurrent().eval()
    model = compress.load(module, example_inputs=torch.ones(2, 5, 24))
    initializers = model.graph.initializers
    assert tuple(initializers["gru.weight_ih_l0"].shape) == (2, 3 * 48, 24)
    assert tuple(initializers["gru.weight_hh_l0"].shape) == (2, 3 * 48, 48)
    x = np.random.default_rng(0).normal(size=(3, 5, 24)).astype(np.float32)
    expected = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model.run({"x": x})[0], expected, atol=1e-6)
    assert Int8Weights()(model).weight_bytes < 0.3 * model.weight_bytes


def test_sizes_written_as_minus_one_or_question_marks_are_open(normal):
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [-1, 3, "?", "?"]) for name in "xy"
    )
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    model = compress.load(proto, calibration=[normal(2, 3, 4, 5)])
    sizes = [dim if isinstance(dim, int) else dim.value for dim in model.graph.inputs[0].shape]
    assert sizes == [None, 3, "?", "?"]
    assert [feeds["x"].shape for feeds, _ in model.calibration.batches(model.graph.inputs)] == [(2, 3, 4, 5)]


def test_small_types_stay_small(build, normal):
    text = "g (float[N,8] x) => (float[N,4] y) { f = Cast<to=1>(q) w = Mul(f, s) y = MatMul(x, w) }"
    codes = np.arange(32, dtype=np.int8).reshape(8, 4)
    model = compress.load(build(text, q=codes, s=np.float32(0.5))).prepared()
    assert model.weight_bytes == 32 + 4


def test_the_default_of_an_input_keeps_its_shape(build, normal):
    text = "g (float[4,8] x, float[16,8] w) => (float[4,16] y) { y = Gemm<transB=1>(x, w) }"
    proto = build(text, w=normal(16, 8))
    assert [tuple(value.shape) for value in compress.load(proto).prepared().graph.inputs][-1] == (16, 8)


GROWING = {
    "repeated": "r = Expand(w, shape) y = Mul(x, r)",
    "read by others": "r = Neg(w) y = Mul(x, r) z = Identity(w)",
    "filled": "r = ConstantOfShape(shape) y = Add(x, r)",
}


@pytest.mark.parametrize("case", GROWING)
def test_what_would_make_the_file_grow_is_left_to_the_runtime(case, build, normal):
    outputs = "float[4,32] y, float[1,32] z" if "z =" in GROWING[case] else "float[4,32] y"
    text = f"g (float[4,32] x) => ({outputs}) {{ {GROWING[case]} }}"
    model = compress.load(build(text, w=normal(1, 32), shape=np.array([4, 32])))
    prepared, feeds = model.prepared(), {"x": normal(4, 32)}
    assert prepared.weight_bytes <= model.weight_bytes
    for found, wanted in zip(prepared.run(feeds), model.run(feeds), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_recurrent_weights_of_any_size_stand_in_their_order(build, normal):
    text = """g (float[T,N,272] x) => (float[T,1,N,272] y) {
        s = Slice(w, zero, half, zero) e = Slice(w, half, end, zero) c = Concat<axis = 0>(e, s)
        u = Unsqueeze(c, zero) y = LSTM<hidden_size = 272>(x, u, r)
    }"""
    places = {"zero": np.array([0]), "half": np.array([544]), "end": np.array([1088])}
    model = compress.load(build(text, w=normal(1088, 272), r=normal(1, 1088, 272), **places)).prepared()
    assert [node.op_type for node in model.graph] == ["LSTM"]
    assert model.graph.initializers["w"].shape == (1, 1088, 272)


def test_outputs_that_identities_join_keep_their_names(build):
    text = """g (float[N,4] x) => (float[N,4] y, float[N,4] again, float[N,4] copy, float[M,4] h) {
        a = Relu(x) b = Identity(a) y = Identity(b) again = Identity(a) copy = Identity(x)
        c = Neg(b) h = Identity(c) }"""
    model = normalise(ir.from_proto(build(text)))
    assert [value.name for value in model.graph.outputs] == ["y", "again", "copy", "h"]
    assert [node.op_type for node in model.graph].count("Identity") == 2
    assert str(model.graph.outputs[3].shape) == "[M,4]"


def test_sequences_of_old_operator_sets_stay_as_they_are(build, normal):
    text = "g (float[N,6] x) => (float[N,2] y) { s = SplitToSequence<axis=1>(x, l) y = SequenceAt(s, i) }"
    proto = build(text, opset=12, ir_version=7, l=np.array([2, 4]), i=np.int64(0))
    x = normal(3, 6)
    np.testing.assert_array_equal(compress.load(proto).prepared().run({"x": x})[0], x[:, :2])


def test_a_sequence_of_parts_of_unknown_size_stays(build, normal):
    text = "g (float[N,4] x) => (float[N,4] y) { s = SplitToSequence<axis=0>(x, one) y = ConcatFromSequence<axis=0>(s) }"
    model = compress.load(build(text, one=np.array(1)))
    x = normal(3, 4)
    np.testing.assert_array_equal(model.prepared().run({"x": x})[0], x)
