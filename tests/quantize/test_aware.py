"""Quantization-aware training: what is exported is what was trained, and it beats rounding afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn

from compress.data import Data
from compress.graph.optimized import as_run
from compress.model import Model
from compress.passes.finetune import Finetune
from compress.passes.int8_static import Int8Static
from compress.passes.prune_channels import PruneChannels
from compress.passes.qat import Qat
from compress.source import load
from compress.train.lesson import Lesson, learn
from compress.train.loop import Outcome
from compress.trainable.module import Trainable

torch.set_num_threads(1)
CLASSES = 6


def _batches(count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return noisy copies of six fixed images and their numbers."""
    patterns = np.random.default_rng(42).normal(size=(CLASSES, 1, 8, 8)) * 0.6
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(count):
        labels = rng.integers(0, CLASSES, 32)
        noise = rng.normal(size=(32, 1, 8, 8))
        batches.append(((patterns[labels] + noise).astype(np.float32), labels))
    return batches


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, 1, 1)
        self.wide = nn.Linear(128, 64)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.deep(x)) + x
        return self.head(torch.nn.functional.gelu(self.wide(x.flatten(1))))


@pytest.fixture(scope="module")
def trained() -> ir.Model:
    torch.manual_seed(0)
    net = _Net()
    steps = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for x, y in _batches(120, seed=1):
        steps.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        steps.step()
    return load(net.eval(), example_inputs=_batches(1)[0][0]).ir


@pytest.fixture
def model(trained: ir.Model) -> Model:
    return Model(trained.clone(), calibration=Data(_batches(8)))


def _loss(model: Model) -> float:
    losses = []
    for x, y in _batches(10, seed=7):
        scores = torch.from_numpy(model.run({"x": x})[0])
        losses.append(float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(y))))
    return float(np.mean(losses))


@pytest.fixture
def students(monkeypatch: pytest.MonkeyPatch) -> list[ir.Model]:
    """The graphs that were trained, with their fake quantizers."""
    seen = []

    def watched(lesson: Lesson) -> Outcome:
        outcome = learn(lesson)
        seen.append(lesson.student)
        return outcome

    monkeypatch.setattr("compress.train.finetuning.learn", watched)
    return seen


def _outputs(student: ir.Model, x: np.ndarray) -> np.ndarray:
    return Trainable(student).eval()(x=torch.from_numpy(x))[0].detach().numpy()


def _exact(model: Model, **feeds: np.ndarray) -> np.ndarray:
    """Run the graph as it stands: fused integer kernels round sums on their own."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(ir.to_proto(model.ir).SerializeToString(), options).run(None, feeds)[0]


@pytest.mark.parametrize("settings", [{}, {"weight_bits": 4}, {"weight_bits": 4, "activations": False}])
def test_what_is_exported_is_what_was_trained(
    model: Model, students: list[ir.Model], settings: dict[str, Any]
) -> None:
    quantized = Qat(epochs=2, learning_rate=1e-3, **settings)(model)
    x = _batches(1, seed=3)[0][0]
    expected = _outputs(students[0], x)
    result = _exact(quantized, x=x) if settings.get("activations", True) else quantized.run({"x": x})[0]
    # Biases are stored in steps of input scale times weight scale, and a value on the edge of a step may
    # fall to the other side; MatMulNBits rounds activations inside its kernel.
    limit = 1e-2 if settings.get("activations", True) else 3e-2
    assert np.abs(result - expected).mean() < limit * np.abs(expected).mean()
    onnx.checker.check_model(ir.to_proto(quantized.ir))
    assert quantized.weight_bytes < model.weight_bytes / (3 if settings == {} else 4)
    assert not any("FakeQuantize" in node.op_type for node in quantized.graph)


@pytest.mark.parametrize("learn_scales", [True, False])
def test_training_beats_rounding_afterwards(model: Model, learn_scales: bool) -> None:
    settings = {"weight_bits": 2, "learn_scales": learn_scales}
    model.calibration = Data(_batches(24))
    rounded = Qat(epochs=1, learning_rate=1e-12, **settings)(model)
    trained = Qat(epochs=6, learning_rate=3e-3, **settings)(model)
    assert _loss(trained) < 0.8 * _loss(rounded)


def test_scales_are_learnt_only_if_asked(model: Model) -> None:
    fixed, learnt, untrained = (
        Qat(epochs=epochs, learning_rate=rate, learn_scales=learn, weight_bits=4)(model)
        for epochs, rate, learn in ((2, 1e-3, False), (2, 1e-3, True), (1, 1e-12, False))
    )
    scale = [each.graph.initializers["x.scale"].const_value.numpy() for each in (fixed, learnt, untrained)]
    assert scale[0] == scale[2] != scale[1]


def test_excluded_layers_stay_float_but_train(model: Model) -> None:
    quantized = Qat(epochs=1, exclude=("head.weight",))(model)
    head = quantized.graph.initializers["head.weight"].const_value
    assert head.dtype == ir.DataType.FLOAT
    assert (head.numpy() != model.graph.initializers["head.weight"].const_value.numpy()).any()
    assert "wide.weight" not in quantized.graph.initializers


def test_the_original_teaches(model: Model) -> None:
    model.calibration = Data([x for x, _ in _batches(8)])
    rounded = Qat(epochs=1, learning_rate=1e-12, distill=True, weight_bits=2)(model)
    taught = Qat(epochs=8, learning_rate=2e-3, distill=True, weight_bits=2)(model)
    x = _batches(1, seed=5)[0][0]
    wanted = model.run({"x": x})[0]
    error = [np.square(each.run({"x": x})[0] - wanted).mean() for each in (rounded, taught)]
    assert error[1] < 0.5 * error[0]


def test_pruned_trained_and_quantized_models_do_not_collapse(model: Model) -> None:
    pruned = PruneChannels(ratio=0.4, importance="random")(model)
    tuned = Finetune(epochs=8, learning_rate=3e-3)(pruned)
    assert _loss(tuned) < 0.5 * _loss(pruned)
    for quantize in (Int8Static(), Qat(epochs=2), Qat(weight_bits=4, epochs=4, learning_rate=1e-3)):
        assert _loss(quantize(tuned)) < 1.2 * _loss(tuned) + 0.05


def _recurrent(calibration: list[np.ndarray]) -> Model:
    """Return a GRU over [time, batch, 8] with a linear layer behind."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[T, N, 8] x) => (float[T, N, 5] y) {
            states, last = GRU <hidden_size = 16, linear_before_reset = 1> (x, inner, outer, bias)
            flat = Squeeze (states, one) y = MatMul (flat, head)
        }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    shapes = {"inner": (1, 48, 8), "outer": (1, 48, 16), "bias": (1, 96), "head": (16, 5)}
    arrays = {name: 0.5 * rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, array in {**arrays, "one": np.array([1])}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return Model(ir.from_proto(proto), calibration=Data(calibration))


def test_recurrent_weights_are_trained_through_their_rounding(students: list[ir.Model]) -> None:
    data = [np.random.default_rng(seed).normal(size=(6, 16, 8)).astype(np.float32) for seed in range(8)]
    model = _recurrent(data)
    rounded, trained = (
        Qat(epochs=epochs, learning_rate=rate, weight_bits=2)(model)
        for epochs, rate in ((1, 1e-12), (16, 1e-2))
    )
    x = np.random.default_rng(99).normal(size=(6, 16, 8)).astype(np.float32)
    wanted = model.run({"x": x})[0]
    error = [np.square(each.run({"x": x})[0] - wanted).mean() for each in (rounded, trained)]
    assert error[1] < 0.8 * error[0]
    expected = _outputs(students[1], x)
    assert np.abs(_exact(trained, x=x) - expected).mean() < 1e-2 * np.abs(expected).mean()
    # Codes and their scales are all that is stored of the three matrices.
    assert not [name for name in ("inner", "outer", "head") if name in trained.graph.initializers]


def test_claims_of_clipped_layers_are_what_runs(build: Any, normal: Any) -> None:
    """Integer kernels take a Clip in only if the learnt scale stays within its ends."""
    text = """g (float[N,4,6,6] x) => (float[N,4,4,4] y) {
        a = Conv(x, w) k = Clip(a, lo, hi) p = Conv(k, v) y = Relu(p)
    }"""
    ends = {"lo": np.float32(-1), "hi": np.float32(1)}
    data = [{"x": normal(8, 4, 6, 6)} for _ in range(2)]
    model = load(build(text, w=normal(4, 4, 2, 2), v=normal(4, 4, 2, 2), **ends), calibration=data)
    small = Qat(epochs=1)(model)
    claimed = [change for change in small.changes if change.action.startswith("8-bit activations")]
    integer = [node.op_type for node in as_run(small.ir).graph if node.op_type == "QLinearConv"]
    assert len(integer) == len(claimed) == 2 and not any("float" in each.action for each in claimed)
