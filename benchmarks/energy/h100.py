"""The h100 profile: fitted to some of ML.ENERGY's decoders, asked about the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import decoder
import measured
import numpy as np
from measured import Token
from scipy.optimize import nnls

from compress.estimator import Cost, Profile, estimate_generation, estimate_parallel, load
from compress.estimator.uncertainty import Drawn

PROMPT = 200
"""Tokens of a request; half the answer is written when the middle token is."""


def cost(profile: Profile, row: Token) -> Cost:
    """Return what one generated token of every request takes, its share of the prompt included."""
    batch, layers = round(row.batch), decoder.DECODERS[row.model].layers
    silent = profile.model_copy(update={"request_seconds": None})
    one = estimate_generation(
        decoder.block(row.model), silent, prompt=PROMPT, tokens=row.written, batch=batch, devices=row.gpus
    ).total
    shapes = {"batch": batch, "sequence": 1}
    head = estimate_parallel(decoder.head(row.model), profile, row.gpus, "tensor", shapes=shapes).total
    return _times(one, layers / row.written) + head + _serving(profile, row)


@cache
def shipped(row: Token) -> Cost:
    """Return the same with the profile as it is shipped."""
    return cost(load("h100"), row)


def _times(one: Cost, factor: float) -> Cost:
    energy = {name: joules * factor for name, joules in one.energy.items()}
    moved = {name: size * factor for name, size in one.bytes_moved.items()}
    drawn = Drawn(one.drawn.joules * factor, one.drawn.unsure * factor, one.drawn.log_sd)
    return Cost(
        energy, bytes_moved=moved, macs=round(one.macs * factor), seconds=one.seconds * factor, drawn=drawn
    )


def _serving(profile: Profile, row: Token) -> Cost:
    assert profile.request_seconds is not None and profile.leakage_watts is not None
    seconds = row.batch * profile.request_seconds.draws
    joules = seconds * profile.leakage_watts.draws * row.gpus
    return Cost({"static": float(joules[0])}, seconds=float(seconds[0]), drawn=Drawn(joules[1:]))


@dataclass(frozen=True)
class Parts:
    """What the profile's fitted numbers are multiplied with for one generated token of every request."""

    row: Token
    dense: float
    """Bytes from DRAM but for those of attention, on all GPUs."""
    attended: float
    macs: float
    starts: float
    """Layers that one GPU starts."""
    joules: float
    """What does not depend on the numbers that are fitted; likewise `seconds`."""
    seconds: float


@cache
def parts(row: Token) -> Parts:
    """Return the parts of one row, from two estimates."""
    profile = load("h100")
    whole = shipped(row)
    instant = cost(profile.model_copy(update={"start_seconds": None}), row)
    start, serving = profile.start_seconds, _serving(profile, row)
    assert start is not None and profile.attention_efficiency is not None
    dram, unit, efficiency = (
        profile.memories[0],
        profile.arithmetic["fp16"],
        profile.attention_efficiency.value,
    )
    assert dram.pj_per_bit is not None and dram.bytes_per_second is not None
    paid = whole.energy["dram"] / (8e-12 * dram.pj_per_bit.value)
    attended = (paid - whole.bytes_moved["dram"]) / (1 / efficiency - 1)
    fitted = whole.energy["dram"] + whole.energy["static"] + whole.macs * unit.pj_per_mac.value * 1e-12
    reading = attended / efficiency / dram.bytes_per_second.value / row.gpus
    return Parts(
        row=row,
        dense=whole.bytes_moved["dram"] - attended,
        attended=attended,
        macs=whole.macs,
        starts=(whole.seconds - instant.seconds) / start.value,
        joules=whole.energy_joules - fitted,
        seconds=instant.seconds - serving.seconds - reading,
    )


@dataclass(frozen=True)
class Numbers:
    """The profile's numbers that are fitted; the rates of arithmetic and DRAM are the data sheet's."""

    attention_efficiency: float
    start_seconds: float
    request_seconds: float
    pj_per_bit: float
    pj_per_mac: float
    leakage_watts: float

    def seconds(self, of: Parts) -> float:
        """Return the time between two tokens."""
        known = _known_seconds(of, self.attention_efficiency)
        return known + of.starts * self.start_seconds + of.row.batch * self.request_seconds

    def joules(self, of: Parts) -> float:
        """Return the energy of one generated token."""
        paid = of.dense + of.attended / self.attention_efficiency
        moved = paid * 8e-12 * self.pj_per_bit + of.macs * 1e-12 * self.pj_per_mac
        static = self.leakage_watts * self.seconds(of) * of.row.gpus
        return (moved + static + of.joules) / of.row.batch


def fit(rows: Sequence[Token]) -> Numbers:
    """Return the numbers with the least squares of relative errors, every model with the same weight."""
    known = [parts(row) for row in rows]
    weights = np.array([sum(other.model == row.model for other in rows) ** -0.5 for row in rows])

    def loss(one: Numbers) -> float:
        errors = [(one.joules(of) / of.row.joules - 1, one.seconds(of) / of.row.seconds - 1) for of in known]
        return float(np.square(np.array(errors) * weights[:, None]).sum())

    return min((_fitted(known, weights, efficiency / 50) for efficiency in range(10, 50)), key=loss)


def _fitted(known: Sequence[Parts], weights: np.ndarray, efficiency: float) -> Numbers:
    """Return the other numbers at one efficiency of attention: those of time first, then those of energy."""

    def solved(rows: list[tuple[float, ...]], wanted: list[float], scale: list[float]) -> np.ndarray:
        weight = weights / np.array(scale)
        return np.asarray(nnls(np.array(rows) * weight[:, None], np.array(wanted) * weight)[0])

    seconds = [of.row.seconds for of in known]
    rest = [of.row.seconds - _known_seconds(of, efficiency) for of in known]
    start, request = solved([(of.starts, of.row.batch) for of in known], rest, seconds)
    timed = Numbers(efficiency, start, request, 0.0, 0.0, 0.0)
    joules = [of.row.joules * of.row.batch for of in known]
    parts_of_joules = [
        (
            (of.dense + of.attended / efficiency) * 8e-12,
            of.macs * 1e-12,
            timed.seconds(of) * of.row.gpus,
        )
        for of in known
    ]
    rest = [whole - of.joules for whole, of in zip(joules, known, strict=True)]
    return Numbers(efficiency, start, request, *solved(parts_of_joules, rest, joules))


def _known_seconds(of: Parts, efficiency: float) -> float:
    dram = load("h100").memories[0]
    assert dram.bytes_per_second is not None
    return of.seconds + of.attended / efficiency / dram.bytes_per_second.value / of.row.gpus


@cache
def left_out() -> dict[str, Numbers]:
    """Return, for every model, the numbers fitted to all others."""
    rows = measured.tokens()
    return {name: fit([row for row in rows if row.model != name]) for name in decoder.DECODERS}
