"""Samplers of a search against its mixed-integer program.

``python benchmarks/seek_samplers.py [--models digits,resnet20] [--hardware stm32u575]``

First annealing on 20 random problems of up to 200 layers and 12 choices, whose cells are separable, then time
and memory of nine solutions of the largest; with ``--models`` the hypervolume of log10 of the loss, from 1e-5
to 1, and of the energy over the original's, after as many true evaluations of each sampler.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from search import network

from compress.recipe.wanted import Search
from compress.seek.blind import SAMPLERS, explore
from compress.seek.frontier import Point
from compress.seek.journal import Journal
from compress.seek.problem import Cell, Decision, Problem
from compress.seek.qubo import Qubo
from compress.seek.solver import LOSS, solve
from compress.seek.study import Study
from compress.seek.walk import LOSSES, Walk, Wish

LEAST = 1e-5
"""Loss that counts as none."""


def separable(seed: int, layers: int, options: int = 12) -> Problem:
    """Return a random problem in which every layer is decided, and costs, by itself."""
    rng = np.random.default_rng(seed)
    numbers = range(layers)
    costs = [np.sort(rng.uniform(0.05, 1, options))[::-1] * rng.lognormal(0, 1) for _ in numbers]
    losses = [np.array([0, *np.sort(10 ** rng.uniform(-6, -1, options - 1))]) for _ in numbers]
    decisions = [
        Decision("channels", f"layer {number}", (*map(float, range(options)),)) for number in numbers
    ]
    cells = [Cell(f"layer {n}", (n,), {"energy": cost}) for n, cost in enumerate(costs)]
    return Problem(decisions, losses, cells)


def annealing() -> str:
    """Say how far annealing is from the optimum, and whether all its answers keep the limit."""
    qubo = Qubo()
    for seed, layers in enumerate(np.linspace(10, 200, 20).astype(int)):
        qubo(separable(seed, layers), "energy", {LOSS: 0.02 * layers / 10})
    feasible = np.isfinite(qubo.gaps).sum()
    return f"{qubo.notes[0]}; {feasible} of {len(qubo.gaps)} feasible"


def frontier() -> str:
    """Say what nine solutions of the largest problem take."""
    problem, start = separable(0, 200), time.perf_counter()
    for loss in np.geomspace(*LOSSES, 9):
        solve(problem, "energy", {LOSS: float(loss)})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return (
        f"200 layers of 12 choices, nine solutions: {time.perf_counter() - start:.1f} s, {peak:.0f} MB in all"
    )


def hypervolume(points: list[Point], original: float) -> float:
    """Return the share of the square of losses and costs that the points beat."""
    scaled = sorted(
        (np.log10(max(each.noise, LEAST)) / -np.log10(LEAST) + 1, each.found["energy"] / original)
        for each in points
    )
    area, highest = 0.0, 1.0
    for loss, cost in scaled:
        if loss < 1 and cost < highest:
            area, highest = area + (1 - loss) * (highest - cost), cost
    return area


def compare(name: str, hardware: str, evaluations: int) -> str:
    """Say what every sampler reaches with the same true evaluations."""
    study = Study(network(name).model, Search(hardware=hardware), "accuracy", Journal())
    wish = Wish("energy", {}, None, np.inf, evaluations)
    walk = Walk(study.problem, wish, study.evaluated)
    walk.go()
    volumes = {"milp": hypervolume(walk.points, study.original["energy"])}
    for sampler in SAMPLERS:
        points = explore(sampler, study.problem, wish, study.evaluated)
        volumes[sampler] = hypervolume(points, study.original["energy"])
    told = ", ".join(f"{sampler} {volume:.3f}" for sampler, volume in volumes.items())
    return f"{name} on {hardware}, {evaluations} evaluations, milp asked for {len(walk.points)}: {told}"


def main() -> None:
    """Print the figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--models", default="")
    options.add_argument("--hardware", default="stm32u575")
    options.add_argument("--evaluations", type=int, default=24)
    given = options.parse_args()
    for name in filter(None, given.models.split(",")):
        print(compare(name, given.hardware, given.evaluations), flush=True)
    if not given.models:
        print(frontier(), annealing(), sep="\n")


if __name__ == "__main__":
    main()
