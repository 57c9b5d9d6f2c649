"""Numbers as people read them: SI prefixes, ratios, signs."""

from __future__ import annotations

import math

PREFIXES = {-18: "a", -15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
"""SI prefixes by power of ten."""
MISSING = "–"
"""Written where there is no number."""


def prefix(value: float, *, whole: bool = False) -> tuple[float, str]:
    """Return the power of ten and the SI prefix that write `value` with one to three digits before the point.

    Args:
        value: what is to be written; 0 and numbers that are not finite take no prefix.
        whole: the unit cannot be divided (bytes), so there is no prefix below one.
    """
    if value == 0 or not math.isfinite(value):
        return 1.0, ""
    # Rounded first: 999.9 J is 1.00 kJ, not 1000 J.
    rounded = abs(float(f"{value:.3g}"))
    power = 3 * math.floor(math.log10(rounded) / 3)
    power = min(max(power, 0 if whole else min(PREFIXES)), max(PREFIXES))
    return 10.0**power, PREFIXES[power]


def si(value: float, unit: str) -> str:
    """Write `value` with three significant digits and an SI prefix, as in ``"12.3 µJ"``."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return f"{'−' if value < 0 else ''}∞ {unit}"
    whole = unit == "B"
    scale, letter = prefix(value, whole=whole)
    return f"{_significant(value / scale, integers=whole and scale == 1)} {letter}{unit}"


def spread(value: float, deviation: float, unit: str) -> str:
    """Write `value` with its standard deviation in per cent, as in ``"12.3 µJ ± 4%"``."""
    return f"{si(value, unit)} ± {deviation / abs(value):.0%}"


def count(number: int, thing: str, things: str = "") -> str:
    """Write a number with its noun, in the plural unless the number is one."""
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"


def cost(joules: float, low: float, high: float, dram_bytes: float, seconds: float) -> str:
    """Write an estimated cost: energy with its range, DRAM traffic and time."""
    span = f"{si(low, 'J')} to {si(high, 'J')}"
    return f"{si(joules, 'J')} ({span}), {si(dram_bytes, 'B')} of DRAM traffic, {si(seconds, 's')}"


def ratio(value: float, reference: float) -> str:
    """Write `value` over `reference`, as in ``"0.27×"``; empty where the reference is zero or not finite."""
    if not reference or not math.isfinite(value / reference):
        return ""
    quotient = value / reference
    return f"{quotient:.2f}×" if 0.095 <= quotient < 9.995 else f"{quotient:.2g}×"


def span(low: float, high: float) -> str:
    """Write the ends of a ratio, as in ``"(0.21–0.34)"``."""
    return f"({ratio(low, 1.0)[:-1]}–{ratio(high, 1.0)[:-1]})"


def number(value: float) -> str:
    """Write a metric, which has no unit, with four significant digits."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    return f"{value:#.4g}".removesuffix(".").replace("-", "−")


def signed(value: float) -> str:
    """Write a difference with its sign and two significant digits; no difference is ``"±0"``."""
    if value == 0 or math.isnan(value):
        return "±0" if value == 0 else MISSING
    return f"{value:+.2g}".replace("-", "−")


def decibels(value: float) -> str:
    """Write a signal-to-noise ratio; infinite means that nothing differs."""
    return f"{value:.1f} dB".replace("-", "−") if math.isfinite(value) else si(value, "dB")


def share(value: float) -> str:
    """Write a share in per cent; one below 1 is not rounded up to 100%, which means all."""
    return ">99.9%" if 0.9995 <= value < 1 else f"{value:.1%}"


def cosine(value: float) -> str:
    """Write a cosine with four decimals; one below 1 is not rounded up to 1, which means equal."""
    if math.isnan(value):
        return MISSING
    return ">0.9999" if 0.99995 <= value < 1 else f"{value:.4f}".replace("-", "−")


def _significant(value: float, *, integers: bool) -> str:
    if integers or value == 0:
        return f"{value:.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:.{decimals}f}".replace("-", "−")
