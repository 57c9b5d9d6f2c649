"""Fine-tuning: the curve of a torch twin, distillation, sparsity, early stop."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn

from compress.changes import Reason
from compress.data import Data
from compress.errors import DataError, PassError
from compress.model import Model
from compress.passes.finetune import Finetune
from compress.passes.prune_channels import PruneChannels
from compress.source import load
from compress.train.examples import Batch, Examples
from compress.train.objective import Objective, soft_divergence

torch.set_num_threads(1)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _labelled(count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return batches of images whose class is the brightest quarter."""
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(count):
        labels = rng.integers(0, 4, 16)
        images = rng.normal(size=(16, 1, 8, 8)).astype(np.float32)
        for image, label in zip(images, labels, strict=True):
            row, column = 4 * (label // 2), 4 * (label % 2)
            image[0, row : row + 4, column : column + 4] += 0.7
        batches.append((images, labels))
    return batches


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 1, 1, bias=False),
        )
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.body(x))).flatten(1))


@pytest.fixture(scope="module")
def net() -> _Net:
    torch.manual_seed(0)
    return _Net().eval()


@pytest.fixture(scope="module")
def exported(net: _Net) -> ir.Model:
    return load(net, example_inputs=_random(2, 1, 8, 8)).ir


@pytest.fixture
def model(exported: ir.Model) -> Model:
    return Model(exported.clone(), calibration=Data(_labelled(8)))


def _linear(calibration: list[Any] | None, **weights: np.ndarray) -> Model:
    """Return ``tanh(x first) second`` over four inputs."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N, 4] x) => (float[N, 3] y) {
            a = MatMul(x, first) h = Tanh(a) b = MatMul(h, second) y = Mul(b, one)
        }"""
    proto = onnx.parser.parse_model(text)
    arrays = {"first": _random(4, 6), "second": _random(6, 3, seed=1), "one": np.float32(1)}
    arrays |= weights
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()
    )
    return Model(ir.from_proto(proto), calibration=Data(calibration) if calibration else None)


def _weights(model: Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def _accuracy(model: Model) -> float:
    return float(np.mean([(model.run({"x": x})[0].argmax(1) == y).mean() for x, y in _labelled(8, seed=9)]))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_is_that_of_a_torch_twin(net: _Net, model: Model, optimizer: str) -> None:
    settings = {"epochs": 3, "learning_rate": 0.01, "weight_decay": 0, "warmup": 0, "held_out": 0}
    tuned = Finetune(optimizer=optimizer, batch_size=0, **settings)(model)
    twin = copy.deepcopy(net).train()
    rate = {"lr": 0.01, "weight_decay": 0.0}
    sgd = functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True)
    steps = (torch.optim.AdamW if optimizer == "adamw" else sgd)(twin.parameters(), **rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(steps, 3 * 8)
    batches = [Batch({"x": torch.from_numpy(x)}, torch.from_numpy(y)) for x, y in _labelled(8)]
    for epoch in range(3):
        for batch in Examples(batches).epoch(epoch):
            steps.zero_grad()
            F.cross_entropy(twin(batch.feeds["x"]), batch.labels).backward()
            steps.step()
            schedule.step()
    x = _random(5, 1, 8, 8, seed=3)
    expected = twin.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(tuned.run({"x": x})[0], expected, rtol=1e-3, atol=1e-3)


def test_labels_teach(model: Model) -> None:
    tuned = Finetune(epochs=8, batch_size=32, learning_rate=0.01)(model)
    assert _accuracy(model) < 0.5
    assert _accuracy(tuned) > 0.7
    changed = {change.layer: change for change in tuned.changes}
    assert "8 epochs" in changed["head.weight"].action
    assert 0 < changed["head.weight"].error < 10


def test_the_same_seed_gives_the_same_bits(model: Model) -> None:
    first, second = (_weights(Finetune(epochs=2, batch_size=32, seed=4)(model)) for _ in range(2))
    other = _weights(Finetune(epochs=2, batch_size=32, seed=5)(model))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    assert any((array != other[name]).any() for name, array in first.items())


@pytest.mark.parametrize("kind", [True, "mse", "kl"])
def test_the_original_teaches_without_labels(kind: Any) -> None:
    data = [_random(32, 4, seed=seed) for seed in range(8)]
    model = _linear(data)
    damaged = model.copy()
    damaged._original = model
    second = damaged.graph.initializers["second"]
    second.const_value = ir.tensor(np.round(second.const_value.numpy()), name="second")
    tuned = Finetune(epochs=10, distill=kind, learning_rate=0.02)(damaged)
    x = {"x": _random(64, 4, seed=99)}
    wanted = torch.from_numpy(model.run(x)[0])
    before, after = (
        float(soft_divergence(torch.from_numpy(now.run(x)[0]), wanted, 1.0)) for now in (damaged, tuned)
    )
    assert after < 0.25 * before


def test_hidden_values_are_imitated_by_name() -> None:
    data = [_random(32, 4, seed=seed) for seed in range(8)]
    model = _linear(data)
    damaged = _linear(data, first=_random(4, 6, seed=5))
    damaged._original = model
    tuned = Finetune(epochs=20, distill=True, hidden=("h",), learning_rate=0.05, include=("first",))(damaged)
    error = {
        name: np.abs(_weights(now)["first"] - _weights(model)["first"]).mean()
        for name, now in (("before", damaged), ("after", tuned))
    }
    assert error["after"] < 0.3 * error["before"]
    np.testing.assert_array_equal(_weights(tuned)["second"], _weights(damaged)["second"])
    assert {change.layer: change.skipped for change in tuned.changes}["second"] == Reason.LEFT_OUT


def test_what_no_epoch_improves_stays() -> None:
    model = _linear([_random(32, 4, seed=seed) for seed in range(8)])
    tuned = Finetune(epochs=2, distill=True, learning_rate=0.1)(model)
    for name, array in _weights(model).items():
        np.testing.assert_array_equal(_weights(tuned)[name], array)
    assert "none of 2 epochs did better on held-out data" in tuned.changes[0].skipped


def test_the_teacher_speaks_once_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    data = [_random(32, 4, seed=seed) for seed in range(8)]
    damaged = _linear(data, first=_random(4, 6, seed=5))
    damaged._original = _linear(data)
    settings = {"epochs": 3, "distill": True, "hidden": ("h",), "learning_rate": 0.01}
    once = _weights(Finetune(**settings)(damaged))
    monkeypatch.setattr("compress.train.examples.ROOM_BYTES", 100)
    for name, array in _weights(Finetune(**settings)(damaged)).items():
        np.testing.assert_allclose(array, once[name], atol=1e-6)


def test_changed_models_imitate_the_original_by_default(model: Model) -> None:
    original = Model(Finetune(epochs=4, learning_rate=0.01)(model).ir)
    original.calibration = Data([x for x, _ in _labelled(8)])
    pruned = PruneChannels(ratio=0.4, importance="magnitude", scope="local")(original)
    tuned = Finetune()(pruned)
    x = {"x": _labelled(4, seed=3)[0][0]}
    error = [np.square(each.run(x)[0] - original.run(x)[0]).mean() for each in (pruned, tuned)]
    assert error[1] < 0.7 * error[0]


def test_scalars_are_part_of_a_checkpoint(tmp_path: Path) -> None:
    model = _linear([_random(8, 4)])
    tuned = Finetune(epochs=1, distill=True, checkpoint=str(tmp_path / "training.pt"))(model)
    assert _weights(tuned)["one"] == 1


def test_zeros_stay_zero_when_asked(exported: ir.Model) -> None:
    model = Model(exported.clone(), calibration=Data(_labelled(4)))
    value = model.graph.initializers["head.weight"]
    sparse = value.const_value.numpy().copy()
    sparse[np.abs(sparse) < np.median(np.abs(sparse))] = 0
    value.const_value = ir.tensor(sparse, name="head.weight")
    kept = _weights(Finetune(epochs=2)(model))["head.weight"]
    np.testing.assert_array_equal(kept == 0, sparse == 0)
    assert (_weights(Finetune(epochs=2, keep_zeros=False)(model))["head.weight"] != 0).all()


def test_training_stops_when_held_out_data_get_worse(model: Model) -> None:
    noise = [(x, np.random.default_rng(0).integers(0, 4, 16)) for x, _ in _labelled(10)]
    model.calibration = Data(noise)
    tuned = Finetune(epochs=60, learning_rate=0.03, held_out=0.3, patience=2)(model)
    assert 3 <= int(tuned.changes[0].action.split()[1]) < 60


def test_a_checkpoint_of_another_training_is_refused(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    torch.save({"key": "another"}, path)
    with pytest.raises(PassError, match="checkpoint of another training"):
        Finetune(checkpoint=str(path))(model)


def test_bfloat16_products_train_too(model: Model) -> None:
    tuned = Finetune(epochs=8, batch_size=32, learning_rate=0.01, mixed_precision=True)(model)
    assert _accuracy(tuned) > 0.7
    assert _weights(tuned)["head.weight"].dtype == np.float32


def test_probabilities_teach_like_the_scores_they_come_from(exported: ir.Model) -> None:
    batch = Batch({}, torch.tensor([1, 0, 3]))
    scores = torch.randn(3, 4)
    expected = F.cross_entropy(scores, batch.labels)
    torch.testing.assert_close(Objective(probabilities=True)([scores.softmax(1)], batch), expected)
    softened = exported.clone()
    output = softened.graph.outputs[0]
    # As some exporters spell it: no Softmax node tells that these are probabilities.
    powers = ir.node("Exp", [output], name="powers")
    axis = ir.Value(name="axis", const_value=ir.tensor(np.array([1]), name="axis"))
    softened.graph.register_initializer(axis)
    total = ir.node("ReduceSum", [powers.outputs[0], axis], name="total")
    chances = ir.node("Div", [powers.outputs[0], total.outputs[0]], name="chances")
    for node in (powers, total, chances):
        node.outputs[0].name = f"{node.name}_value"
    chances.outputs[0].type, chances.outputs[0].shape = output.type, output.shape
    softened.graph.extend([powers, total, chances])
    softened.graph.outputs[0] = chances.outputs[0]
    first, second = (
        _weights(Finetune(epochs=1)(Model(each, calibration=Data(_labelled(3)))))["head.weight"]
        for each in (softened, exported.clone())
    )
    np.testing.assert_allclose(first, second, atol=2e-5)


def test_errors_say_what_to_do(exported: ir.Model) -> None:
    unlabelled = Model(exported.clone(), calibration=Data([_random(4, 1, 8, 8)]))
    with pytest.raises(PassError, match=r"no labels.*distill: true"):
        Finetune(distill=False)(unlabelled)
    with pytest.raises(
        PassError, match="nothing to learn: the data have no labels, and no pass has changed the model"
    ):
        Finetune()(unlabelled)
    with pytest.raises(PassError, match=r"hidden values .* distill: true"):
        Finetune(hidden=("relu",), distill=False)(unlabelled)
    named = Model(exported.clone(), calibration=Data([(_random(2, 1, 8, 8), ["cat", "dog"])]))
    with pytest.raises(DataError, match="labels are not numbers"):
        Finetune()(named)
    with pytest.raises(DataError, match="finetune needs calibration data"):
        Finetune()(Model(exported.clone()))
    with pytest.raises(PassError, match=r"epoch \d+, step \d+: the loss is .*lower learning_rate"):
        Finetune(learning_rate=1e30, optimizer="sgd", epochs=50)(
            Model(exported.clone(), calibration=Data(_labelled(2)))
        )
    mixed = [_random(4, 1, 8, 8), _random(4, 1, 8, 9)]
    free = exported.clone()
    free.graph.inputs[0].shape = None
    with pytest.raises(PassError, match="batch_size needs batches of one shape"):
        Finetune(batch_size=2, distill=True)(Model(free, calibration=Data(mixed)))
