"""The networks that benchmarks/pruning.py traces, as torch modules with an example of their inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any, TypeAlias

import torch
from resnet20 import ResNet20
from torch import Tensor, nn
from zoo import HERE as ZOO

Network: TypeAlias = tuple[nn.Module, dict[str, Tensor]]
"""A module, and inputs by name."""


class InvertedResidual(nn.Module):
    """MobileNet's block: wide, depthwise, narrow."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 6 * inputs
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            *(nn.BatchNorm2d(wide), nn.ReLU6(), nn.Conv2d(wide, outputs, 1, bias=False)),
            nn.BatchNorm2d(outputs),
        )
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.skip else y


class VisionTransformer(nn.Module):
    """Four layers of width 192, one fused matrix for query, key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 192, 16, 16)
        self.position = nn.Parameter(torch.randn(1, 196, 192))
        self.layers = nn.ModuleList(self._layer() for _ in range(4))
        self.norm, self.head = nn.LayerNorm(192), nn.Linear(192, 1000)

    @staticmethod
    def _layer() -> nn.ModuleDict:
        norms = {"norm1": nn.LayerNorm(192), "norm2": nn.LayerNorm(192)}
        attention = {"qkv": nn.Linear(192, 576), "out": nn.Linear(192, 192)}
        return nn.ModuleDict(norms | attention | {"up": nn.Linear(192, 768), "down": nn.Linear(768, 192)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        count = x.shape[0]
        for layer in self.layers:
            fused = layer["qkv"](layer["norm1"](x)).reshape(count, 196, 3, 3, 64)
            q, k, v = fused.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = (q @ k.transpose(-1, -2) * 64**-0.5).softmax(-1) @ v
            x = x + layer["out"](mixed.transpose(1, 2).reshape(count, 196, 192))
            x = x + layer["down"](nn.functional.gelu(layer["up"](layer["norm2"](x))))
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


class Logits(nn.Module):
    """A Llama whose outputs are a tensor."""

    def __init__(self, layers: int) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        super().__init__()
        config = LlamaConfig(
            vocab_size=8000,
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=layers,
            num_attention_heads=8,
            num_key_value_heads=4,
            use_cache=False,
        )
        self.llama = LlamaForCausalLM(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.llama(input_ids=input_ids, use_cache=False).logits
        return logits


def zoo_module(name: str) -> Any:
    """Import a file of the zoo under a name that hides no package."""
    spec = spec_from_file_location(f"zoo_{name}", ZOO / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.path.insert(0, str(ZOO))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ZOO))
    return module


def _mobilenet() -> nn.Module:
    shapes = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1)]
    blocks = [InvertedResidual(*shape) for shape in shapes]
    stem = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10))


def _legere() -> nn.Module:
    module: nn.Module = zoo_module("legere")._part("model").CompactCRNN()
    return module


TOKENS = torch.zeros(2, 9, dtype=torch.long)
NETWORKS: dict[str, Callable[[], Network]] = {
    "ResNet-20": lambda: (ResNet20(), {"x": torch.zeros(8, 3, 32, 32)}),
    "MobileNet-like": lambda: (_mobilenet(), {"input": torch.zeros(2, 3, 32, 32)}),
    "EfficientNet-Lite0": lambda: (
        zoo_module("efficientnet_lite0").build(),
        {"inputs": torch.zeros(2, 3, 224, 224)},
    ),
    "Llama, 2 layers": lambda: (Logits(2), {"input_ids": TOKENS}),
    "SmolLM2": lambda: (zoo_module("smollm2").build(), {"input_ids": TOKENS}),
    "MiniLM (BERT)": lambda: (
        zoo_module("minilm").build(),
        {"input_ids": TOKENS, "attention_mask": TOKENS + 1},
    ),
    "ViT, fused qkv": lambda: (VisionTransformer(), {"x": torch.zeros(2, 3, 224, 224)}),
    "legere (CRNN, GRU)": lambda: (_legere(), {"images": torch.zeros(2, 1, 32, 160)}),
}
CONVOLUTIONAL = ("ResNet-20", "MobileNet-like", "EfficientNet-Lite0")
"""Networks on which Torch-Pruning's groups are right."""
