"""What a search finds beside variants written by hand, and how well it predicts.

``python benchmarks/search.py [--models resnet20,legere] [--hardware stm32u575] [--random 40]``

Written by hand are int8, channels pruned by a quarter and by half with repair, and both together. The metric
is that of the network, on data that neither search nor passes read. With ``--random N`` it prints instead how
the predicted loss of N random configurations agrees with the measured one. The networks come with
``benchmarks/models.txt``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "recipes")]

import digits_cnn  # noqa: E402
import resnet20  # noqa: E402
from quantization import prepare  # noqa: E402
from quantization_methods import read_batches  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from zoo import entry  # noqa: E402

import compress  # noqa: E402
from compress.graph.session import session  # noqa: E402
from compress.model import Model  # noqa: E402
from compress.passes import Int8Static, PruneChannels  # noqa: E402
from compress.recipe.wanted import Search  # noqa: E402
from compress.seek import search  # noqa: E402
from compress.seek.journal import Journal  # noqa: E402
from compress.seek.problem import Assignment  # noqa: E402
from compress.seek.study import Study  # noqa: E402

Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
BY_HAND: Mapping[str, list[Any]] = {
    "int8": [Int8Static()],
    "pruned 25 %": [PruneChannels(ratio=0.25, repair=True)],
    "pruned 50 %": [PruneChannels(ratio=0.5, repair=True)],
    "pruned 25 %, int8": [PruneChannels(ratio=0.25, repair=True), Int8Static()],
    "pruned 50 %, int8": [PruneChannels(ratio=0.5, repair=True), Int8Static()],
}


@dataclass(frozen=True)
class Network:
    """A network with its data.

    Attributes:
        model: with calibration data.
        metric: what a run reaches on the evaluation data.
    """

    model: Model
    metric: Callable[[Run], float]


def network(name: str) -> Network:
    """Return a network by name."""
    own = {"digits": digits_cnn, "resnet20": resnet20}.get(name)
    if own is None:
        one = entry(name)
        folder = prepare(one)
        model = compress.load(folder / "float.onnx", calibration=read_batches(folder / "calibration.npz"))
        return Network(model, lambda run: next(iter(one.metric(run).values())))
    built = own.build()
    data: list[Any] = list(own.calibration())
    model = compress.load(*(built if isinstance(built, tuple) else (built,)), calibration=data)
    (image,) = (value.name or "" for value in model.graph.inputs)

    def accuracy(run: Run) -> float:
        found = [
            (run({image: np.asarray(batch)})[0].argmax(1) == np.asarray(labels)).mean()
            for batch, labels in own.evaluation()
        ]
        return float(np.mean(found))

    return Network(model, accuracy)


def compare(name: str, hardware: str, choices: list[str], evaluations: int) -> Table:
    """Return what a search finds and what is written by hand."""
    found, start = network(name), time.perf_counter()
    frontier = search(found.model, hardware=hardware, choices=choices, evaluations=evaluations)
    seconds = time.perf_counter() - start
    study = Study(found.model, Search(hardware=hardware), "accuracy", Journal())
    title = f"{name} on {hardware}: {len(frontier.evaluated)} evaluations, {seconds:.0f} s"
    table = Table("variant", "energy", "SNR dB", "predicted dB", "metric", title=title)
    run = session(found.model.ir, threads=1).run
    table.add_row("original", "1.000", "", "", f"{found.metric(lambda feeds: run(None, feeds)):.4f}")
    for each, passes in BY_HAND.items():
        model = compress.Pipeline(passes)(found.model)
        share = compress.estimate(model, hardware, shapes=study.sizes).total.energy_joules
        table.add_row(
            each,
            f"{share / study.original['energy']:.3f}",
            f"{-10 * np.log10(study.noise(model)):.1f}",
            "",
            f"{found.metric(_runs(model)):.4f}",
        )
    for number, point in enumerate(frontier, 1):
        table.add_row(
            f"search-{number}",
            f"{frontier.share(point):.3f}",
            f"{point.snr_db:.1f}",
            f"{-10 * np.log10(point.predicted['loss'] or 1e-12):.1f}",
            f"{found.metric(_runs(point.model)):.4f}",
        )
    return table


def _runs(model: Model) -> Run:
    run = session(model.ir, threads=1).run
    return lambda feeds: run(None, feeds)


def predicted(name: str, hardware: str, choices: list[str], count: int) -> str:
    """Say how predicted loss agrees with measured loss over random configurations."""
    study = Study(
        network(name).model, Search(hardware=hardware, choices=tuple(choices)), "accuracy", Journal()
    )
    points = [study.evaluated(chosen) for chosen in _random(study, count)]
    pairs = np.array([(point.predicted["loss"], point.noise) for point in points])
    ratios = np.quantile(pairs[:, 1] / pairs[:, 0], [0.1, 0.5, 0.9])
    energies = [point.found["energy"] / point.predicted["energy"] - 1 for point in points]
    return (
        f"{name} on {hardware}: {count} configurations, rank correlation {spearmanr(*pairs.T)[0]:.3f}, "
        f"measured over predicted {ratios[1]:.2f} [{ratios[0]:.2f}, {ratios[2]:.2f}], "
        f"energy within {100 * np.abs(energies).max():.1f} %"
    )


def _random(study: Study, count: int) -> Iterator[Assignment]:
    """Yield configurations whose conditions hold, from few changes to many."""
    rng, decisions = np.random.default_rng(0), study.space.decisions
    known = [np.flatnonzero(losses < 1e3) for losses in study.problem.loss]
    made = 0
    while made < count:
        share = rng.random()
        chosen = [int(rng.choice(options)) if rng.random() < share else 0 for options in known]
        for link in study.problem.links:  # a layer in integers asks for integer weights and codes around it
            first, *others = link.terms
            if decisions[first[0]].kind == "arithmetic" and chosen[first[0]] == first[1]:
                for number, option, weight in others:
                    chosen[number] = option if weight < 0 else max(chosen[number], 1)
        for link in study.problem.links:  # codes that no layer asks for are none
            first, *others = link.terms
            if decisions[first[0]].kind == "codes" and not link.holds(tuple(chosen)):
                chosen[first[0]] = 0
        if study.problem.holds(tuple(chosen)) and any(chosen):
            made += 1
            yield tuple(chosen)


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--models", default="digits,resnet20,legere,magika")
    options.add_argument("--hardware", default="stm32u575")
    options.add_argument("--choices", default="bits,channels")
    options.add_argument("--evaluations", type=int, default=24)
    options.add_argument("--random", type=int, default=0)
    given = options.parse_args()
    for name in given.models.split(","):
        choices = given.choices.split(",")
        if given.random:
            print(predicted(name, given.hardware, choices, given.random), flush=True)
        else:
            Console().print(compare(name, given.hardware, choices, given.evaluations))


if __name__ == "__main__":
    main()
