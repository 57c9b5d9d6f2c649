"""Prune, repair and train real networks, and print what is reached beside what pruning should reach.

``python benchmarks/pruning.py [groups] [running] [efficientnet] [magika] [legere] [latency]``

groups        coupling groups of convolutional networks, ours and Torch-Pruning's
running       networks on which Torch-Pruning hangs or breaks: pruned, run, and compared with zeroed channels
efficientnet  30 % of EfficientNet-Lite0's channels without training: plain magnitude, and repaired
magika        an ONNX file at half its multiply-accumulates, distilled on unlabelled files
legere        a text reader at half its multiply-accumulates, distilled on rendered lines
latency       time in ONNX Runtime over multiply-accumulates, both over the unpruned network's

Nothing but the printed numbers reads evaluation data. The networks come with ``benchmarks/models.txt``,
Torch-Pruning with the extra ``dev``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pruning_networks import CONVOLUTIONAL, NETWORKS, zoo_module
from pruning_peers import groups as peer_groups
from rich.console import Console
from rich.table import Table
from zoo import HERE as ZOO
from zoo import entry

import compress
from compress.data import Data
from compress.graph.session import session
from compress.model import Model
from compress.passes import Finetune, PruneChannels
from compress.prune.coupling import Coupling
from compress.prune.price import price

TIME_LIMIT_SECONDS = 120
"""After which Torch-Pruning counts as hanging."""
RUNS = 15
BLOCK = 16
"""Channels that ONNX Runtime computes at once where there is AVX-512."""
FILES, LINES = 60, 640
"""Unlabelled files of each ending that teach Magika, and lines of text that teach legere."""
Rows = list[tuple[str, str, str, bool]]
"""What was measured, the number, the goal, and whether it is reached."""


def groups() -> Rows:
    """Compare coupling groups with Torch-Pruning's."""
    rows = []
    for name in CONVOLUTIONAL:
        module, example = NETWORKS[name]()
        theirs = peer_groups(module.eval(), tuple(example.values()))
        ours = {
            frozenset(
                (member.value.name or "", member.axis)
                for member in group.members
                if (member.value.name or "").endswith("weight") and len(member.value.shape or ()) > 1
            )
            for group in Coupling(compress.load(module, example_inputs=example).ir).groups
        }
        rows.append((name, f"{len(ours & theirs)} of {len(theirs)} the same", "all", ours == theirs))
    return rows


def running() -> Rows:
    """Prune networks of every kind."""
    rows = []
    for name in NETWORKS:
        print(f"running: {name}", file=sys.stderr, flush=True)
        peer = _peer(name)
        model, feeds = _loaded(name)
        start = time.perf_counter()
        pruned = PruneChannels(ratio=0.3)(model)
        seconds = time.perf_counter() - start
        shapes = [array.shape for array in pruned.run(feeds)]
        fits = shapes == [array.shape for array in model.run(feeds)]
        left = pruned.weight_bytes / model.weight_bytes
        text = f"{seconds:.1f} s, {left:.0%} of the weights; Torch-Pruning: {peer}"
        rows.append((name, text, "runs, in seconds", fits))
    return rows


def _peer(name: str) -> str:
    """Return how Torch-Pruning fares, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("pruning_peers.py")), name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIME_LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"hangs (over {TIME_LIMIT_SECONDS} s)"
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return lines[-1][:80] if lines else "?"


def _loaded(name: str) -> tuple[Model, dict[str, np.ndarray]]:
    """Return a network of the table as a model, and inputs; legere's export is the zoo's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.startswith("legere"):
            model = compress.load("legere.py:build", home=ZOO, trust=True)
            return model, {"images": np.zeros((2, 1, 32, 160), np.float32)}
        module, example = NETWORKS[name]()
        feeds = {key: tensor.numpy() for key, tensor in example.items()}
        return compress.load(module.eval(), example_inputs=example), feeds


def efficientnet() -> Rows:
    """Remove 30 % of the channels, with nothing but unlabelled crops to repair them."""
    model, metric = _zoo_model("efficientnet_lite0")
    plain = metric(PruneChannels(ratio=0.3, importance="magnitude")(model).run)
    rows = [("EfficientNet-Lite0, 30 % of channels by magnitude", f"top-1 {plain:.3f}", "", True)]
    for settings in ({}, {"repair": True}):
        reached = metric(PruneChannels(ratio=0.3, **settings)(model).run)
        goal = f"{plain + 0.2:.3f}" if settings else ""
        name = "the same, repaired" if settings else "by Fisher importance"
        rows.append((name, f"top-1 {reached:.3f}", goal, not settings or reached >= plain + 0.2))
    return rows


def magika() -> Rows:
    """Halve Magika's multiply-accumulates, and let the original teach what is left on unlabelled files."""
    zoo = zoo_module("magika")
    zoo.CALIBRATED = FILES
    return _distilled("magika", list(zoo.calibration()), Finetune(distill="kl", epochs=4))


def legere() -> Rows:
    """Halve legere's multiply-accumulates, and let the original teach what is left on rendered lines."""
    zoo = zoo_module("legere")
    text, charset = zoo.news.calibration_text(), zoo._part("charset").CHARSET
    pictures = [picture for picture, _ in zoo.text_lines.lines(LINES, text, charset, 2, zoo.HEIGHT)]
    pictures.sort(key=lambda picture: picture.shape[1])
    batches = [zoo._feeds(pictures[start : start + zoo.BATCH]) for start in range(0, LINES, zoo.BATCH)]
    mixed = [batches[place] for place in np.random.default_rng(0).permutation(len(batches))]
    return _distilled("legere", mixed, Finetune(distill="kl", epochs=10, learning_rate=3e-3))


def _distilled(name: str, data: list[dict[str, np.ndarray]], training: Finetune) -> Rows:
    """Prune and train a network of the zoo with nothing but inputs."""
    model, metric = _zoo_model(name)
    model.calibration = Data(data)
    shapes = {key: array.shape for key, array in data[0].items()}
    goal = metric(model.run) - 0.01
    pruned = PruneChannels(ratio=0.5, of="macs", repair=True)(model)
    left = price(pruned, "macs", "cpu", shapes) / price(model, "macs", "cpu", shapes)
    start = time.process_time()
    trained = training(pruned)
    seconds = time.process_time() - start
    repaired, reached = metric(pruned.run), metric(trained.run)
    return [
        (f"{name}, original", f"{goal + 0.01:.4f}", "", True),
        (f"with {left:.0%} of the MACs, repaired", f"{repaired:.4f}", "", True),
        (f"and distilled for {seconds:.0f} s", f"{reached:.4f}", f"{goal:.4f}", reached >= goal),
    ]


def latency() -> Rows:
    """Time convolutional networks at half their multiply-accumulates, taking turns with the original."""
    rows = []
    for name in ("ResNet-20", "EfficientNet-Lite0", "legere (CRNN, GRU)"):
        model, feeds = _loaded(name)
        shapes = {key: array.shape for key, array in feeds.items()}
        pruned = PruneChannels(ratio=0.5, of="macs", round_to=BLOCK)(model)
        macs = price(model, "macs", "cpu", shapes) / price(pruned, "macs", "cpu", shapes)
        faster = _speedup(model, pruned, feeds)
        rows.append(
            (
                name,
                f"{macs:.2f}x fewer MACs, {faster:.2f}x faster: {faster / macs:.2f}",
                "0.70",
                faster / macs >= 0.7,
            )
        )
    return rows


def _speedup(model: Model, pruned: Model, feeds: dict[str, np.ndarray]) -> float:
    """Return the median processor time of `model` over that of `pruned`, on one thread."""
    sessions = [session(each.ir, threads=1) for each in (model, pruned)]
    seconds: list[list[float]] = [[], []]
    for _ in range(RUNS):
        for runner, times in zip(sessions, seconds, strict=True):
            start = time.process_time()
            runner.run(None, feeds)
            times.append(time.process_time() - start)
    before, after = (statistics.median(times[1:]) for times in seconds)
    return before / after


def _zoo_model(name: str) -> tuple[Model, Callable[[Any], float]]:
    """Return a network of the zoo with its calibration data, and its metric."""
    network = entry(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = compress.load(network.model, calibration=network.calibration, home=ZOO, trust=True)
    return model, lambda run: next(iter(network.metric(run).values()))


GOALS: dict[str, Callable[[], Rows]] = {
    each.__name__: each for each in (groups, running, efficientnet, magika, legere, latency)
}


def main(names: Sequence[str]) -> None:
    """Measure what `names` say, everything without."""
    for name in names or GOALS:
        table = Table(title=name, title_justify="left")
        for column in ("", "measured", "goal"):
            table.add_column(column)
        for what, number, goal, reached in GOALS[name]():
            table.add_row(what, f"[{'green' if reached else 'red'}]{number}", goal)
        Console(width=140).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("goals", nargs="*", choices=[[], *GOALS], metavar="goal")
    main(parser.parse_args().goals)
