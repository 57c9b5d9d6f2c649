"""Coupling groups: whole networks lose channels and still compute what zeroing those channels computes."""

from functools import cache

import numpy as np
import onnx_ir as ir
import pruning_peers
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.model import Model
from compress.prune.coupling import Coupling
from compress.source import load


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.a_norm = nn.BatchNorm2d(outputs)
        self.b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.b_norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x):
        return F.relu(self.b_norm(self.b(F.relu(self.a_norm(self.a(x))))) + self.shortcut(x))


class ResNet(nn.Sequential):
    def __init__(self):
        blocks = [
            Residual(i, o, s) for i, o, s in [(8, 8, 1), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 24, 2)]
        ]
        super().__init__(
            nn.Conv2d(3, 8, 3, 1, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)
        )


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        hidden = inputs * 4
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            *(nn.BatchNorm2d(hidden), nn.ReLU6(), nn.Conv2d(hidden, outputs, 1), nn.BatchNorm2d(outputs)),
        )
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.skip else self.body(x)


class MobileNet(nn.Sequential):
    """Ends in a flatten of more than one pixel."""

    def __init__(self):
        blocks = [InvertedResidual(8, 8, 1), InvertedResidual(8, 16, 2), InvertedResidual(16, 16, 1)]
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1),
            *blocks,
            nn.Conv2d(16, 12, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(192, 10),
        )


class DenseNet(nn.Module):
    """Concatenations, a transposed and a grouped convolution, a channel shuffle, two halves."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, 8, 3, 1, 1)) for i in (16, 24, 32)
        )
        self.up = nn.ConvTranspose2d(40, 12, 2, 2)
        self.grouped = nn.Conv2d(12, 24, 3, 1, 1, groups=3)
        self.left, self.right = nn.Conv2d(12, 6, 1), nn.Conv2d(12, 6, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        left, right = F.relu(self.grouped(self.up(F.relu(x)))).chunk(2, 1)
        x = torch.cat([self.left(left), self.right(right)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(F.relu(x).mean((2, 3)))


class VisionTransformer(nn.Module):
    """One fused matrix makes query, key and value."""

    def __init__(self):
        super().__init__()
        self.patch, self.position = nn.Conv2d(3, 32, 4, 4), nn.Parameter(torch.randn(1, 16, 32))
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(3))
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 7)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        n = x.shape[0]
        q, k, v = self.qkv(self.norms[0](x)).reshape(n, 16, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-1, -2) * 0.35).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, 16, 32))
        x = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return self.head(self.norms[2](x).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, 2, 1)
        self.gru = nn.GRU(64, 12, bidirectional=True, batch_first=True)
        self.lstm, self.out = nn.LSTM(24, 10, batch_first=True), nn.Linear(10, 11)

    def forward(self, x):
        x = F.relu(self.conv(x))
        n, c, h, w = x.shape
        x = x.permute(0, 3, 1, 2).reshape(n, w, c * h)
        return self.out(self.lstm(self.gru(x)[0])[0])


class Bert(nn.Module):
    def __init__(self):
        from transformers import BertConfig, BertModel

        super().__init__()
        sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 200}
        config = BertConfig(num_hidden_layers=1, num_attention_heads=4, **sizes)
        self.bert, self.out = BertModel(config, add_pooling_layer=False), nn.Linear(32, 3)

    def forward(self, input_ids, attention_mask):
        return self.out(self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)


class Llama(nn.Module):
    def __init__(self):
        from transformers import LlamaConfig, LlamaForCausalLM

        super().__init__()
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        config = LlamaConfig(
            vocab_size=50, hidden_size=32, num_hidden_layers=1, intermediate_size=48, use_cache=False, **heads
        )
        self.llama = LlamaForCausalLM(config)

    def forward(self, input_ids):
        return self.llama(input_ids=input_ids, use_cache=False).logits


IMAGES = {"x": torch.zeros(2, 3, 16, 16)}
TOKENS = torch.zeros(2, 9, dtype=torch.long)
NETWORKS = {
    "resnet": (ResNet, {"input": IMAGES["x"]}),
    "mobilenet": (MobileNet, {"input": IMAGES["x"]}),
    "densenet": (DenseNet, IMAGES),
    "vision-transformer": (VisionTransformer, IMAGES),
    "recurrent": (Recurrent, {"x": torch.zeros(2, 1, 16, 16)}),
    "bert": (Bert, {"input_ids": TOKENS, "attention_mask": TOKENS + 1}),
    "llama": (Llama, {"input_ids": TOKENS}),
}


def module(name):
    torch.manual_seed(0)
    network = NETWORKS[name][0]().eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                tensor.data.uniform_(0.5, 1.5)
    return network


@cache
def exported(name):
    return load(module(name), example_inputs=NETWORKS[name][1])


def groups(name):
    found = Coupling(exported(name).ir).groups
    return [(group.size, group.kind) for group in found if not group.obstacle]


def random_masks(coupling, rng):
    """Keep about half of every group; normalized widths stay, since removing them changes the statistics."""
    keep = {}
    for group in coupling.groups:
        if not group.obstacle and group.kind != "embedding":
            keep[group] = rng.permutation(group.size) < max(1, group.size // 2)
    return keep


def feeds(model, batch, rng):
    arrays = {}
    for value in model.graph.inputs:
        shape = [d if isinstance(d, int) else (7 + batch if i else batch) for i, d in enumerate(value.shape)]
        dtype = value.dtype.numpy()
        is_mask = "mask" in value.name
        integers = np.ones(shape) if is_mask else rng.integers(0, 50, shape)
        arrays[value.name] = (rng.normal(size=shape) if dtype.kind == "f" else integers).astype(dtype)
    return arrays


@pytest.mark.parametrize("name", NETWORKS)
def test_removing_channels_equals_zeroing_them(name, zeroed):
    rng = np.random.default_rng(1)
    original, model = exported(name), exported(name).copy()
    coupling = Coupling(model.ir)
    keep = random_masks(coupling, rng)
    expected = zeroed(model, keep)
    coupling.removal(keep).apply(model.graph)
    assert model.weight_bytes < 0.75 * original.weight_bytes
    for batch in (1, 3):
        inputs = feeds(model, batch, rng)
        for got, want, before in zip(*(m.run(inputs) for m in (model, expected, original)), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
            assert not np.allclose(before, want, rtol=1e-3)


def test_groups_of_a_transformer():
    assert groups("bert") == [
        *((32, "embedding"), (4, "heads"), (8, "head-width"), (8, "head-width"), (48, "channels"))
    ]


def test_grouped_queries_go_with_their_key_and_rotary_pairs_stay_together():
    assert groups("llama") == [
        *((32, "embedding"), (2, "heads"), (2, "heads"), (4, "head-width"), (8, "head-width")),
        (48, "channels"),
    ]


def test_fused_query_key_value_lose_the_same_heads():
    assert (4, "heads") in groups("vision-transformer")


def test_recurrent_units():
    assert groups("recurrent") == [(8, "channels"), (12, "channels"), (10, "channels")]


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_groups_equal_those_of_torch_pruning(name):
    theirs = pruning_peers.groups(module(name), next(iter(NETWORKS[name][1].values())))
    ours = {
        frozenset(
            (m.value.name, m.axis)
            for m in group.members
            if m.value.name.endswith("weight") and len(m.value.shape) > 1
        )
        for group in Coupling(exported(name).ir).groups
    }
    assert ours == theirs


def text_model(body, inputs="float[N,4] x", outputs="float[N,M] y", opset=21):
    head = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    return Model(ir.from_onnx_text(f"{head}\ng ({inputs}) => ({outputs})\n{body}"))


def with_weights(model, **shapes):
    """Give a model written as text its weights, which are inputs of the text."""
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        value = next(value for value in model.graph.inputs if value.name == name)
        array = shape if isinstance(shape, np.ndarray) else rng.normal(size=shape).astype(np.float32)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        model.graph.register_initializer(value)
    return model


def test_an_unknown_operator_pins_what_it_touches():
    model = with_weights(
        text_model(
            "{ h = MatMul(x, a)  s = Det(h)  t = MatMul(h, b)  y = Add(t, s) }",
            inputs="float[N,4,4] x, float[4,4] a, float[4,4] b",
            outputs="float[N,4,4] y",
        ),
        a=(4, 4),
        b=(4, 4),
    )
    hidden = Coupling(model.ir).groups[0]
    assert "Det" in hidden.obstacle


def test_a_subgraph_pins_what_it_captures():
    body = """{
      h = MatMul(x, a)
      s = If (c) <then_branch = t () => (float[N,6] p) { p = Relu(h) },
                  else_branch = e () => (float[N,6] q) { q = Identity(h) }>
      y = MatMul(s, b)
    }"""
    inputs = "float[N,4] x, bool c, float[4,6] a, float[6,3] b"
    model = with_weights(text_model(body, inputs=inputs, outputs="float[N,3] y"), a=(4, 6), b=(6, 3))
    assert [bool(group.obstacle) for group in Coupling(model.ir).groups] == [True, True]


def test_shared_shape_constants_get_private_copies():
    body = """{
      h = MatMul(x, a)  r = Reshape(h, s)  t = Relu(r)  u = MatMul(t, b)
      v = Reshape(u, s)  y = MatMul(v, d)
    }"""
    inputs = "float[N,4] x, float[4,6] a, float[6,6] b, float[6,3] d, int64[2] s"
    model = with_weights(
        text_model(body, inputs=inputs, outputs="float[N,3] y"),
        a=(4, 6),
        b=(6, 6),
        d=(6, 3),
        s=np.array([-1, 6]),
    )
    coupling = Coupling(model.ir)
    first, second, _ = coupling.groups
    coupling.removal({first: np.arange(6) < 2, second: np.arange(6) < 5}).apply(model.graph)
    assert model.run({"x": np.ones((2, 4), np.float32)})[0].shape == (2, 3)
    assert model.graph.initializers["a"].shape == (4, 2)
    assert model.graph.initializers["b"].shape == (2, 5)
    assert "s" not in model.graph.initializers


def halved(model, feeds, zeroed):
    """Return the outputs of a model whose free groups lose half of their channels, and of one with zeros."""
    smaller = model.copy()
    coupling = Coupling(smaller.ir)
    keep = {group: np.arange(group.size) % 2 > 0 for group in coupling.groups if not group.obstacle}
    expected = zeroed(model, keep)
    coupling.removal(keep).apply(smaller.graph)
    assert smaller.weight_bytes < model.weight_bytes
    return smaller.run(feeds)[0], expected.run(feeds)[0]


@pytest.mark.parametrize("shape", ["Shape(h)", "Identity(ones)"])
def test_a_shape_of_ones_leaves_an_expanded_axis_free(zeroed, shape):
    body = f"""{{
      g = MatMul(x, a)  h = ReduceMean<keepdims=1>(g, last)  s = {shape}
      k = Expand(g, s)  y = MatMul(k, b)
    }}"""
    inputs = "float[N,4] x, float[4,6] a, float[6,3] b, int64[1] last, int64[2] ones"
    weights = {"a": (4, 6), "b": (6, 3), "last": np.array([1]), "ones": np.array([1, 1])}
    model = with_weights(text_model(body, inputs=inputs, outputs="float[N,3] y"), **weights)
    got, want = halved(model, {"x": np.ones((2, 4), np.float32)}, zeroed)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_slice_of_channels_leaves_the_bounds_of_other_axes(zeroed):
    body = "{ h = MatMul(x, a)  k = Slice(h, from, to, axes)  y = MatMul(k, b) }"
    inputs = "float[N,L,4] x, float[4,8] a, float[4,3] b, int64[2] from, int64[2] to, int64[2] axes"
    far = np.array([2**62, 6])
    weights = {"a": (4, 8), "b": (4, 3), "from": np.array([1, 2]), "to": far, "axes": np.array([1, 2])}
    model = with_weights(text_model(body, inputs=inputs, outputs="float[N,M,3] y"), **weights)
    got, want = halved(model, {"x": np.ones((2, 200, 4), np.float32)}, zeroed)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_split_sizes_are_an_attribute_in_older_operator_sets(zeroed):
    body = """{
      h = MatMul(x, a)  l, r = Split<axis=1, split=[2,6]>(h)  m = Softmax(l)
      u = MatMul(m, b)  v = MatMul(r, d)  y = Add(u, v)
    }"""
    inputs = "float[N,4] x, float[4,8] a, float[2,3] b, float[6,3] d"
    model = text_model(body, inputs=inputs, outputs="float[N,3] y", opset=11)
    model = with_weights(model, a=(4, 8), b=(2, 3), d=(6, 3))
    got, want = halved(model, {"x": np.ones((2, 4), np.float32)}, zeroed)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert next(group.obstacle for group in Coupling(model.ir).groups) == "Softmax runs along it"


def test_an_even_split_that_becomes_uneven_gets_explicit_sizes():
    body = """{
      h = MatMul(x, a)  l, r = Split<axis=-1, num_outputs=2>(h)
      u = MatMul(l, b)  v = MatMul(r, d)  y = Add(u, v)
    }"""
    inputs = "float[N,4] x, float[4,8] a, float[4,3] b, float[4,3] d"
    model = with_weights(
        text_model(body, inputs=inputs, outputs="float[N,3] y"), a=(4, 8), b=(4, 3), d=(4, 3)
    )
    coupling = Coupling(model.ir)
    left, right = coupling.groups[:2]
    coupling.removal({left: np.arange(4) < 1, right: np.arange(4) < 3}).apply(model.graph)
    assert model.run({"x": np.ones((2, 4), np.float32)})[0].shape == (2, 3)


def test_tied_weights_keep_what_either_use_needs():
    body = "{ h = MatMul(x, a)  k = Relu(h)  y = MatMul(k, a) }"
    model = with_weights(
        text_model(body, inputs="float[N,4] x, float[4,4] a", outputs="float[N,4] y"), a=(4, 4)
    )
    assert all(group.obstacle for group in Coupling(model.ir).groups)
