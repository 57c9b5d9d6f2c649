from __future__ import annotations

from collections.abc import Callable

from compress.report.summary import by_pass, indistinct, original
from compress.results import ChangeRecord, Results


def with_ranges(results: Results, ranges: dict[str, tuple[float, float]]) -> Results:
    """Replace the energies on the CPU by the middle of ranges."""
    variants = []
    for variant in results.variants:
        low, high = ranges[variant.name]
        score = variant.hardware["cpu"].model_copy(
            update={"energy_joules": (low + high) / 2, "energy_low": low, "energy_high": high}
        )
        variants.append(variant.model_copy(update={"hardware": {"cpu": score}}))
    return results.model_copy(update={"variants": variants})


def test_overlaps_are_sought_with_the_original_and_the_neighbours(
    make_results: Callable[..., Results],
) -> None:
    results = make_results(("original", "int8", "pruned", "pruned-int8"), hardware=("cpu",))
    ranges = {"original": (8.0, 10.0), "int8": (5.0, 7.0), "pruned": (4.0, 5.5), "pruned-int8": (1.0, 2.0)}
    found = indistinct(with_ranges(results, ranges), "cpu")
    assert found == {"int8": ("pruned",), "pruned": ("int8",)}
    ranges["pruned"] = (4.0, 8.1)
    found = indistinct(with_ranges(results, ranges), "cpu")
    assert found["pruned"] == ("original", "int8")


def test_a_failed_or_changed_variant_is_not_the_original(make_results: Callable[..., Results]) -> None:
    assert original(make_results(("int8",), failed={"original": "no"})) is None


def test_changes_are_summed_by_pass() -> None:
    def change(layer: str, by: str, error: float | None = None, skipped: str = "") -> ChangeRecord:
        action = "" if skipped else "done"
        return ChangeRecord(
            layer=layer,
            action=action,
            bytes_before=8 if action else 0,
            bytes_after=2 if action else 0,
            error=error,
            skipped=skipped,
            by=by,
        )

    first, second = by_pass(
        [
            change("a", "one", 0.1),
            change("b", "one", 0.3),
            change("c", "one", skipped="too small"),
            change("d", "one", skipped="not a weight"),
            change("e", "one", skipped="not a weight"),
            change("a", "two"),
        ]
    )
    assert (first.name, len(first.changed), first.bytes_before, first.bytes_after) == ("one", 2, 16, 4)
    assert first.worst is not None and first.worst.layer == "b"
    assert first.skipped == (("not a weight", ("d", "e")), ("too small", ("c",)))
    assert (second.name, second.worst) == ("two", None)
