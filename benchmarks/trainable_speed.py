"""Print what training the graph costs over training the module it came from.

``python benchmarks/trainable_speed.py [resnet] [bert] [llama]``: forward and backward of the same
batch through a torch module and through its exported graph, taking turns in one process, one thread.
The ratio is that of the medians.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from resnet20 import ResNet20
from torch import Tensor, nn

from compress.source import load
from compress.trainable.module import Trainable

GOAL = 1.3
ROUNDS = 15


def resnet() -> tuple[nn.Module, dict[str, np.ndarray]]:
    """ResNet-20 on 32 images of 32 x 32."""
    return ResNet20(), {"x": np.random.default_rng(0).normal(size=(32, 3, 32, 32)).astype(np.float32)}


def bert() -> tuple[nn.Module, dict[str, np.ndarray]]:
    """BERT of 4 layers and width 256 on 8 sentences of 64 tokens."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    ids = np.random.default_rng(0).integers(0, 30000, (8, 64))
    return BertModel(config, add_pooling_layer=False), {"input_ids": ids}


def llama() -> tuple[nn.Module, dict[str, np.ndarray]]:
    """Llama of 4 layers and width 256 on 4 texts of 64 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        intermediate_size=704,
        use_cache=False,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config), {"input_ids": np.random.default_rng(0).integers(0, 8000, (4, 64))}


def measure(build: Callable[[], tuple[nn.Module, dict[str, np.ndarray]]]) -> tuple[float, float]:
    """Return the median processor seconds of a training step of the module, and of its graph."""
    torch.manual_seed(0)
    module, feeds = build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = Trainable(load(module, example_inputs=feeds).ir)
    module.train()
    graph.train()
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}

    def first(result: object) -> Tensor:
        return result if isinstance(result, Tensor) else result[0]  # type: ignore[index,no-any-return]

    runs = {
        "module": (module, lambda: first(module(**tensors))),
        "graph": (graph, lambda: first(graph(tensors))),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, (owner, run) in runs.items():
            owner.zero_grad(set_to_none=True)
            start = time.process_time()
            run().square().mean().backward()
            seconds[name].append(time.process_time() - start)
    return statistics.median(seconds["module"]), statistics.median(seconds["graph"])


def main() -> None:
    """Measure what the command line names, or everything."""
    torch.set_num_threads(1)
    builders = {"resnet": resnet, "bert": bert, "llama": llama}
    print(f"{'':8} {'torch ms':>9} {'graph ms':>9} {'ratio':>6}   goal {GOAL}")
    for name in sys.argv[1:] or builders:
        module, graph = measure(builders[name])
        print(f"{name:8} {module * 1e3:9.1f} {graph * 1e3:9.1f} {graph / module:6.2f}", flush=True)


if __name__ == "__main__":
    main()
