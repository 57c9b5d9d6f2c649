from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console

from compress.report import html, terminal
from compress.report.summary import all_remarks, indistinct, original
from compress.results import Agreement, LoopScore, Results


def with_draws(results: Results, draws: dict[str, list[float]]) -> Results:
    """Replace the energies on the CPU by ten draws each, and their middle."""
    variants = []
    for variant in results.variants:
        drawn = draws[variant.name]
        score = variant.hardware["cpu"].model_copy(
            update={"energy_joules": sum(drawn) / 10, "energy_draws": drawn}
        )
        variants.append(variant.model_copy(update={"hardware": {"cpu": score}}))
    return results.model_copy(update={"variants": variants})


def test_ties_are_sought_with_the_original_and_the_neighbours(
    make_results: Callable[..., Results],
) -> None:
    results = make_results(("original", "int8", "pruned", "pruned-int8"), hardware=("cpu",))
    draws = {"original": [8.0] * 10, "int8": [6.0] * 10, "pruned": [5.0] * 8 + [7.0] * 2}
    draws["pruned-int8"] = [1.0] * 10
    found = indistinct(with_draws(results, draws), "cpu")
    assert found == {"int8": ("pruned",), "pruned": ("int8",)}
    draws["pruned"] = [5.0] * 8 + [9.0] * 2
    found = indistinct(with_draws(results, draws), "cpu")
    assert found["pruned"] == ("original", "int8")


def test_a_failed_or_changed_variant_is_not_the_original(make_results: Callable[..., Results]) -> None:
    assert original(make_results(("int8",), failed={"original": "no"})) is None


def test_loops_and_what_is_left_out_are_told_in_table_and_report(
    make_results: Callable[..., Results],
) -> None:
    results = make_results(("original", "int8"), hardware=("cpu",))
    loop = LoopScore(op_type="Loop", bodies=12, why="the data decide it")
    first, second = results.variants
    changed = [
        first.model_copy(
            update={"hardware": {"cpu": first.hardware["cpu"].model_copy(update={"loops": {"l": loop}})}}
        ),
        second.model_copy(
            update={
                "hardware": {
                    "cpu": second.hardware["cpu"].model_copy(
                        update={"loops": {"l": loop}, "uncosted": {"Odd": 0.1}}
                    )
                }
            }
        ),
    ]
    results = results.model_copy(update={"variants": changed})
    assert list(all_remarks(results)) == [
        "cpu: Loop 'l' counts 12 bodies: the data decide it",
        "cpu: the arithmetic of Odd is not counted (in int8)",
    ]
    console = Console(file=io.StringIO(), width=120)
    terminal.show(results, console)
    assert "Loop 'l' counts 12 bodies" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "counts 12 bodies: the data decide it" in html.render(results)


def test_what_agreement_does_not_say_is_told(make_results: Callable[..., Results]) -> None:
    results = make_results(("original", "int8"), hardware=())
    first, second = results.variants
    dull = {"mask": "the original's is constant, 1 throughout"}
    changed = [
        first.model_copy(update={"agreement": Agreement(equal=1.0, notes=dull)}),
        second.model_copy(
            update={"agreement": Agreement(equal=0.5, notes=dull, not_comparable={"boxes": "no shape"})}
        ),
    ]
    results = results.model_copy(update={"variants": changed})
    assert list(all_remarks(results)) == [
        "output mask: the original's is constant, 1 throughout",
        "output boxes: cannot be compared: no shape (in int8)",
    ]
    page = html.render(results)
    assert "output boxes: cannot be compared" in page and "50.0% equal" in page
