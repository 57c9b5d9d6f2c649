"""The governor on ten traces of a day, beside the best fixed variant and the offline optimum.

    python benchmarks/governor.py [--seeds 1] [--run DIR] [--without-history]

The variants are those of recipes/solar_meter.yaml on stm32u575, run here unless --run names a folder that
has them. The budget lets a request cost, on average, the geometric mean of the cheapest and the dearest
variant. The governor has seen seven earlier days of the same kind, drawn with other seeds, and knows when the
day ends; of the day itself it sees what has happened. Seed 0 is the ten traces; further seeds are drawn alike
and nothing was chosen by them.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import compress
from compress.governor import Budget, Frontier, Replay, Trace, of_run, replay
from compress.governor.budget import DAY

RECIPE = Path(__file__).parents[1] / "recipes/solar_meter.yaml"
MINUTE = 60.0
HOURS = np.arange(1440) / 60
"""Hour of each minute of a day."""
REQUESTS = 8000
"""Mean number of requests a day."""
WEEK = 7


@dataclass(frozen=True)
class Day:
    """Requests a minute, and powers as multiples of the mean that the budget lets be spent [1440]."""

    arrivals: np.ndarray
    harvest: np.ndarray | None = None
    grants: np.ndarray | None = None


def _rush() -> np.ndarray:
    """Return arrivals of a street: two rush hours and a quiet night."""
    day = 0.4 * ((HOURS > 7) & (HOURS < 20))
    return 0.15 + np.exp(-(((HOURS - 8.5) / 1.5) ** 2)) + 1.2 * np.exp(-(((HOURS - 17.5) / 2) ** 2)) + day


def _bursts(rng: np.random.Generator) -> np.ndarray:
    """Return arrivals that are ten times as many for some minutes, about twice an hour."""
    level, place = np.full(1440, 0.3), 0
    while place < 1440:
        place += 1 + int(rng.exponential(25))
        length = 1 + int(rng.exponential(5))
        level[place : place + length] = 3.0
        place += length
    return level


def _crowds(rng: np.random.Generator) -> np.ndarray:
    """Return even arrivals with four crowds of half an hour at any time."""
    level = np.full(1440, 0.8)
    for begin in rng.integers(0, 1410, 4):
        level[begin : begin + 30] += rng.uniform(1.5, 4)
    return level


def _sun(rng: np.random.Generator | None = None) -> np.ndarray:
    """Return the power of a panel; clouds come and go, for an hour or two each."""
    clear = np.maximum(np.sin((HOURS - 6) / 12 * np.pi), 0.0) ** 1.3
    clear /= clear.mean()
    if rng is None:
        return clear
    cloud = np.zeros(1440)
    for minute in range(1, 1440):
        cloud[minute] = 0.99 * cloud[minute - 1] + rng.normal(0, 0.12)
    return clear * (0.15 + 0.85 / (1 + np.exp(-2 * cloud))) / 0.55


def day(kind: str, rng: np.random.Generator, *, usual: bool = False) -> Day:
    """Return a day of a kind; a usual one has no surprise of its own."""
    match kind:
        case "bursts":
            return Day(_bursts(rng))
        case "random walk":
            steps = np.cumsum(rng.normal(0, 0.03, 1440))
            return Day(np.clip(np.exp(steps - steps.mean()), 0.2, 5))
        case "rush hours, battery" | "rush hours, power":
            return Day(_rush())
        case "solar, clear":
            return Day(np.ones(1440), harvest=_sun())
        case "solar, clouds":
            return Day(_rush(), harvest=_sun(rng))
        case "budget drop":
            drop = 1.0 if usual else np.where(rng.uniform(8, 16) > HOURS, 1.0, 0.6)
            return Day(np.ones(1440), grants=np.ones(1440) * drop)
        case "crowds, battery":
            return Day(_crowds(rng))
    return Day(np.ones(1440))


KINDS = (
    *("steady", "random", "bursts", "random walk", "rush hours, battery", "rush hours, power"),
    *("solar, clear", "solar, clouds", "budget drop", "crowds, battery"),
)
"""Kinds of day; requests or power vary on all but the first."""


def _arrivals(kind: str, one: Day, rng: np.random.Generator) -> np.ndarray:
    """Return the times of a day's requests; days differ by about 15 %, and arrivals are a Poisson process."""
    if kind == "steady":
        return np.arange(REQUESTS) * DAY / REQUESTS
    level = one.arrivals / one.arrivals.mean() * REQUESTS / 1440 * math.exp(rng.normal(0, 0.15))
    minutes = np.repeat(np.arange(1440), rng.poisson(level))
    return np.sort((minutes + rng.random(len(minutes))) * MINUTE)


def trace(kind: str, seed: int, watts: float, days: int = 1, *, usual: bool = False) -> Trace:
    """Return days of a kind, one after the other; `watts` is the mean power that may be spent."""
    made = [np.random.default_rng([seed, number, *kind.encode()]) for number in range(days)]
    each = [day(kind, rng, usual=usual) for rng in made]
    times = np.arange(1440 * days) * MINUTE
    arrivals = [_arrivals(kind, *pair) + n * DAY for n, pair in enumerate(zip(each, made, strict=True))]
    nothing = (np.zeros(0), np.zeros(0))

    def power(parts: list[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
        known = [part for part in parts if part is not None]
        return (times, watts * np.concatenate(known)) if known else nothing

    harvest, grants = power([one.harvest for one in each]), power([one.grants for one in each])
    return Trace(np.concatenate(arrivals), 0.0, days * DAY, harvest, grants)


def budget(kind: str, watts: float) -> Budget:
    """Return the budget that goes with a kind: of a day's joules, granted, in a battery, or harvested."""
    joules = watts * DAY
    if "battery" in kind:
        return Budget(joules=joules, capacity_joules=joules, lasts_seconds=DAY)
    if "solar" in kind:
        return Budget(joules=0.25 * joules, capacity_joules=0.6 * joules, lasts_seconds=DAY)
    return Budget(watts=watts, period_seconds=3600.0, lasts_seconds=DAY)


def replays(frontier: Frontier, seed: int, *, history: bool = True) -> Iterator[tuple[str, Replay]]:
    """Yield the replay of each kind of day."""
    joules = math.sqrt(frontier.options[0].joules * frontier.options[-1].joules)
    watts = joules * REQUESTS / DAY
    for kind in KINDS:
        earlier = trace(kind, seed + 1_000_000, watts, WEEK, usual=True) if history else None
        yield kind, replay(trace(kind, seed, watts), frontier, budget(kind, watts), earlier)


def variants(folder: Path | None) -> Frontier:
    """Return the frontier of a run, which is made first if there is none."""
    if folder is not None:
        return Frontier.of(of_run(folder, "stm32u575").options)
    with tempfile.TemporaryDirectory() as fresh:
        compress.run(RECIPE, fresh)
        return variants(Path(fresh))


def main() -> None:
    """Print a row for each kind of day, the mean and the worst of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--without-history", action="store_true")
    asked = parser.parse_args()
    frontier = variants(asked.run)
    for option in frontier.options:
        print(f"{option.name:12s} accuracy {option.quality:.4f}  {option.joules * 1e6:7.1f} uJ")
    found: dict[str, list[Replay]] = {kind: [] for kind in KINDS}
    for seed in range(asked.seeds):
        for kind, one in replays(frontier, seed, history=not asked.without_history):
            found[kind].append(one)
    print("\nshare of the offline optimum's gain over the cheapest variant, mean and worst of all seeds")
    header = ("governor", "worst", "best fixed", "beats it", "over budget", "unanswered", "switches")
    print(f"{'':20s}" + "".join(f"{word:>12s}" for word in header))
    for kind, each in found.items():
        gains = [one.gain(one.governor) for one in each]
        fixed = [one.gain(one.best_fixed) for one in each]
        wins = np.mean([a > b for a, b in zip(gains, fixed, strict=True)])
        over = max(one.governor.joules / one.budget_joules - 1 for one in each)
        lost = np.mean([one.governor.unanswered / one.requests for one in each])
        switches = np.mean([one.governor.switches for one in each])
        print(
            f"{kind:20s}{np.mean(gains):12.3f}{min(gains):12.3f}{np.mean(fixed):12.3f}{wins:12.0%}"
            f"{max(over, 0):12.2%}{lost:12.2%}{switches:12.0f}"
        )


if __name__ == "__main__":
    main()
