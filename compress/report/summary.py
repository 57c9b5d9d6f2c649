"""What every report needs of a run: the original, the profiles, and variants that cannot be told apart."""

from __future__ import annotations

from compress import estimator
from compress.results import Results, VariantResult


def original(results: Results) -> VariantResult | None:
    """Return the finished variant without passes, the reference of all ratios; None if there is none."""
    return next((v for v in results.variants if v.status == "done" and not v.passes), None)


def profiles(results: Results) -> list[str]:
    """Return the hardware profiles that any variant was scored on, in the order of the run."""
    return list(dict.fromkeys(name for variant in results.variants for name in variant.hardware))


def indistinct(results: Results, hardware: str) -> dict[str, tuple[str, ...]]:
    """Return the variants that the estimate cannot tell apart on one profile.

    Two variants are not distinguishable where their ranges of energy, low to high, overlap. Each
    variant is compared with the original and with its neighbours in the order of energy.

    Returns:
        For each variant the names of those it cannot be told from, the original first; variants
        that can be told from all of them are left out.
    """
    reference = original(results)
    scored = [(v.name, v.hardware[hardware]) for v in results.variants if hardware in v.hardware]
    scored.sort(key=lambda pair: pair[1].energy_joules)
    found: dict[str, tuple[str, ...]] = {}
    for position, (name, score) in enumerate(scored):
        near = [pair for pair in scored if reference is not None and pair[0] == reference.name]
        near += scored[max(0, position - 1) : position] + scored[position + 1 : position + 2]
        alike = dict.fromkeys(
            other for other, theirs in near if other != name and not estimator.distinguishable(score, theirs)
        )
        if alike:
            found[name] = tuple(alike)
    return found
