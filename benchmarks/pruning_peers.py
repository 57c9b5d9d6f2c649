"""Torch-Pruning on the networks of benchmarks/pruning.py: its groups, and whether it prunes at all.

``python benchmarks/pruning_peers.py NETWORK`` prunes 30 % of every group and runs what is left; the last line
says how it went. It runs in a process of its own, since some networks never end.
"""

from __future__ import annotations

import sys
import time
import warnings

import torch
from pruning_networks import NETWORKS
from torch import nn

Parts = frozenset[tuple[str, int]]
"""The weights of a group: name, and the dimension that shrinks."""


def groups(module: nn.Module, example: tuple[torch.Tensor, ...]) -> set[Parts]:
    """Return Torch-Pruning's groups of a convolutional network."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=example)
    found = set()
    for group in graph.get_all_groups():
        parts = set()
        for dependency, _ in group:
            layer, way = dependency.target.module, dependency.handler.__name__
            if isinstance(layer, nn.Conv2d | nn.Linear):
                depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
                turned = isinstance(layer, nn.Linear)
                axis = 0 if depthwise else int((way == "prune_in_channels") != turned)
                parts.add((f"{graph._module2name[layer]}.weight", axis))
        found.add(frozenset(parts))
    return found


def prune(module: nn.Module, example: tuple[torch.Tensor, ...]) -> str:
    """Prune 30 % of the channels with the settings of its documentation; say what came out."""
    import torch_pruning

    before = sum(parameter.numel() for parameter in module.parameters())
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
    pruner = torch_pruning.pruner.MetaPruner(
        module,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=0.3,
        ignored_layers=last,
    )
    pruner.step()
    with torch.no_grad():
        module(*example)
    left = sum(parameter.numel() for parameter in module.parameters()) / before
    return f"runs with {left:.0%} of the weights"


def main() -> None:
    """Prune the network that the command line names; what goes wrong ends it."""
    warnings.simplefilter("ignore")
    module, example = NETWORKS[sys.argv[1]]()
    start = time.perf_counter()
    outcome = prune(module.eval(), tuple(example.values()))
    print(f"{outcome}, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
