"""The eyeriss-v1 profile, fitted to some of AlexNet's layers (JSSC 2017, Table V)."""

from __future__ import annotations

from collections.abc import Sequence

import alexnet
import numpy as np
from scipy.optimize import nnls

from compress.estimator import Estimate, Profile, estimate, load
from compress.estimator.hardware import Quantity, scaled


def fit(layers: Sequence[str]) -> Profile:
    """Return the profile with its four fitted numbers, by least squares of these layers' joules and seconds.

    Energy is that of a multiply-accumulate, a gated one at the profile's share of it, and power at the
    measured seconds. Time is that of the array at its efficiency, and DRAM traffic at its rate.
    """
    profile = load("eyeriss-v1")
    unit, dram = profile.arithmetic["int16"], profile.memories[0]
    assert unit.pj_per_gated_mac is not None and dram.bytes_per_second is not None
    assert profile.efficiency is not None and profile.clock_watts is not None
    gated = unit.pj_per_gated_mac.value / unit.pj_per_mac.value
    whole, free = (
        {layer.name: layer.cost for layer in _estimated(each).layers}
        for each in (profile, _free_of_dram(profile))
    )
    seconds = {name: ms * 1e-3 for name, ms in alexnet.MEASURED_MILLISECONDS.items()}
    operations, array, moved = [], [], []
    for name in layers:
        zeros = alexnet.INPUT_ZEROS[name]
        operations.append(whole[name].macs * (1 - zeros + gated * zeros) * 1e-12)
        array.append(free[name].seconds * profile.efficiency.value)
        moved.append(whole[name].dram_bytes)
    measured = [seconds[name] for name in layers]
    joules = [alexnet.measured_joules(name) for name in layers]
    pj, watts = nnls(np.stack([operations, measured], 1), np.array(joules))[0]
    slow, per_byte = nnls(np.stack([array, moved], 1), np.array(measured))[0]
    units = unit.model_copy(
        update={
            "pj_per_mac": _at(unit.pj_per_mac, pj),
            "pj_per_gated_mac": _at(unit.pj_per_gated_mac, pj * gated),
        }
    )
    rate = _at(dram.bytes_per_second, 1 / max(per_byte, 1e-15))
    memories = (dram.model_copy(update={"bytes_per_second": rate}), *profile.memories[1:])
    return profile.model_copy(
        update={
            "arithmetic": {"int16": units},
            "efficiency": _at(profile.efficiency, 1 / slow),
            "memories": memories,
            "clock_watts": _at(profile.clock_watts, watts),
        }
    )


def _estimated(profile: Profile) -> Estimate:
    return estimate(alexnet.model(), profile, shapes=alexnet.SHAPES, zeros=alexnet.zeros())


def _free_of_dram(profile: Profile) -> Profile:
    dram = scaled(profile.memories[0], {"bytes_per_second": 1e9}, everywhere=True)
    return profile.model_copy(update={"memories": (dram, *profile.memories[1:])})


def _at(quantity: Quantity, value: float) -> Quantity:
    return quantity.model_copy(update={"value": float(value), "low": None, "high": None})
