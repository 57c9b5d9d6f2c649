"""Write the traces of the solar camera: a cloudy day, and the week before it.

    python recipes/solar_meter_trace.py

The camera reads the meter all day, and more often while water runs: in the morning and in the evening. A cell
of some square centimetres yields microwatts beyond what sensor and radio take. Nothing here was measured.
"""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
MINUTES = 15
MICROWATTS = 16.0
"""Yield at noon of a clear day."""


def rows(first: datetime, days: int, seed: int) -> list[str]:
    """Return a row for every quarter of an hour: when, how many requests, how much power."""
    rng = np.random.default_rng(seed)
    found, cloud = [], 0.0
    for step in range(days * 24 * 60 // MINUTES):
        when = first + timedelta(minutes=MINUTES * step)
        hour = when.hour + when.minute / 60
        if step % (24 * 60 // MINUTES) == 0:
            dull, busy = rng.uniform(-1, 1), np.exp(rng.normal(0, 0.1))
        cloud = 0.9 * cloud + rng.normal(0, 0.4)
        clear = max(np.sin((hour - 6) / 12 * np.pi), 0.0) ** 1.3
        watts = MICROWATTS * clear * (0.2 + 0.8 / (1 + np.exp(-1.5 * (cloud + dull))))
        water = 0.3 + np.exp(-(((hour - 7.5) / 1.2) ** 2)) + np.exp(-(((hour - 19) / 1.8) ** 2))
        found.append(f"{when:%Y-%m-%dT%H:%M},{rng.poisson(90 * busy * water)},{watts * 1e-6:.3g}")
    return found


def main() -> None:
    """Write both files."""
    for name, first, days, seed in (("week", 1, 7, 1), ("day", 8, 1, 2)):
        text = "\n".join(["time,requests,harvest_watts", *rows(datetime(2026, 6, first), days, seed)])
        FOLDER.joinpath(f"solar_meter_{name}.csv").write_text(text + "\n")


if __name__ == "__main__":
    main()
