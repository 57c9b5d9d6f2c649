"""From a file to frozen values, or to one message with its place."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress import recipe
from compress.errors import RecipeError
from compress.passes import Int4Weights
from compress.passes.fold import Fold
from compress.passes.int8_static import Int8Static
from compress.passes.prune_channels import PruneChannels

Write = Callable[..., Path]
Complaint = Callable[[Path], str]

HEAD = "version: 1\nmodel: net.py:build\n"
"""Two lines, so that what a test adds begins in line 3."""


FULL = Path(__file__).with_name("full.yaml").read_text(encoding="utf-8")


def test_a_recipe_becomes_frozen_values(write: Write) -> None:
    loaded = recipe.load(write(FULL))
    assert loaded.title == "What a small camera can afford."
    assert loaded.model == "net.py:build"
    assert loaded.data == recipe.DataFunctions(calibration="net.py:data", evaluation="net.py:score")
    assert loaded.metric == recipe.MetricChoice(name="mse", better="lower")
    assert (loaded.seed, loaded.threads, loaded.latency) == (7, 1, 5)
    assert loaded.shapes == {"x": (1, 3, 8, 8)}
    assert [variant.name for variant in loaded.variants] == ["original", "int8", "int4"]
    assert loaded.variants[1].passes == (PruneChannels(ratio=0.25), Int8Static())
    assert loaded.variants[2].passes == (Int4Weights(group_size=64),)


def test_budgets_fall_to_variants_with_passes_and_none_of_their_own(write: Write) -> None:
    original, int8, int4, free = recipe.load(write(FULL + "  free: {passes: [fold], budget: null}")).variants
    assert free.budget is None
    assert original.budget is None
    assert int8.budget is not None and int8.budget.hardware == "eyeriss-v1"
    assert {name: str(limit) for name, limit in int8.budget.limits.items()} == {
        "energy": "50%",
        "drop": "0.01",
    }
    assert int4.budget is not None and list(int4.budget.limits) == ["file"]


def test_little_is_needed(write: Write) -> None:
    loaded = recipe.load(write(HEAD + "variants: {original: [], folded: [fold: ]}"))
    assert loaded.variants[1].passes == (Fold(),)
    assert loaded.hardware == recipe.DEFAULT_HARDWARE
    assert (loaded.data, loaded.metric, loaded.title) == (None, None, "")


def test_one_data_function_calibrates_and_evaluates(write: Write) -> None:
    loaded = recipe.load(write(HEAD + "data: net.py:data\nvariants: {a: []}"))
    assert loaded.data == recipe.DataFunctions(calibration="net.py:data", evaluation="net.py:data")


@pytest.mark.parametrize(
    ("text", "axis"),
    [("1", 1), ("{x: 1, len: null}", {"x": 1, "len": None}), ("null", None), ("auto", "auto")],
)
def test_the_batch_axis_can_be_stated(text: str, axis: object, write: Write) -> None:
    line = f"data: {{calibration: net.py:data, batch_axis: {text}}}\n"
    loaded = recipe.load(write(HEAD + line + "variants: {a: []}"))
    assert loaded.data is not None and loaded.data.batch_axis == axis


def test_a_recipe_can_be_written_down(write: Write) -> None:
    record = json.loads(recipe.load(write(FULL)).model_dump_json())
    assert record["variants"][1]["passes"] == ["prune-channels: {ratio: 0.25}", "int8-static"]
    assert record["budget"]["energy"] == "50%"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("variant: {a: []}", "3:1: unknown key 'variant'; did you mean 'variants'?"),
        ("variants: {a: []}\nseed: five", '4:7: seed should be a valid integer, not "five"'),
        ("variants: {a: []}\nseed: true", "4:7: seed should be a valid integer, not true"),
        ("variants: {a: []}\nlatency: -1", "4:10: latency should be greater than or equal to 0, not -1"),
        (
            f"variants: {{a: []}}\nseed: {2**32}",
            "4:7: seed should be less than or equal to 4294967295, not 4294967296",
        ),
        ("variants: {report.html: []}", "3:12: 'report.html' cannot name a variant and its folder"),
        ("variants: {a: []}\nshapes: {x: [1, 0]}", "4:17: shapes.x.1 should be greater than 0, not 0"),
        (
            "variants: {a: []}\nseed: 1\nseed: 2",
            "5:1: key 'seed' stands here a second time (first in line 4)",
        ),
        ("variants: {a: [1]}", "3:16: a pass is a name, or 'name: {settings}', not 1"),
        (
            "variants: {a: [fold, int8-statik]}",
            "3:22: unknown pass 'int8-statik'; did you mean 'int8-static'?",
        ),
        (
            "variants: {a: [float16: {weights: float8}]}",
            "3:26: float16: unknown key 'weights'; known: compute, exclude, format, include",
        ),
        (
            "variants: {a: [int4-weights: {bits: 8}]}",
            "3:37: int4-weights: bits: int4-weights has 4 bits; write integer-weights: {bits: 8}",
        ),
        ("variants: {a: [fold: {x: 1}]}", "3:23: fold: unknown key 'x'; known: exclude, include"),
        (
            "variants:\n  a:\n  - prune-channels: {ratoi: 1}",
            "5:22: prune-channels: unknown key 'ratoi'; did you mean 'ratio'?",
        ),
        (
            "variants:\n  a:\n  - prune-channels: {ratio: 1.5}",
            "5:29: prune-channels: ratio should be less than 1, not 1.5",
        ),
        (
            "variants:\n  a:\n  - prune-channels:\n    ratio: 0.5",
            "6:5: a pass has one name; indent 'ratio' deeper if it is a setting of 'prune-channels'",
        ),
        ("variants:\n  a:\n  - fold: 3", "5:11: fold should be a mapping of keys to values, not 3"),
        (
            "variants: {a: fold}",
            "3:15: variant 'a' should be a list of passes, not \"fold\"; [] is the original",
        ),
        ("variants: {a: }", "3:14: variant 'a' should be a list of passes, not null; [] is the original"),
        (
            "variants: {a: {fold: }}",
            "3:16: unknown key 'fold'; a variant is a list of passes, or passes and budget",
        ),
        ("variants: {}", "3:11: there are no variants; name at least one, such as 'int8: [int8-static]'"),
        ("variants: [a]", '3:11: variants should be a mapping of keys to values, not ["a"]'),
        (
            "variants: {a/b: []}",
            "3:12: 'a/b' cannot name a variant and its folder; use letters, digits, '.', '_', '+' and '-'",
        ),
        (
            "variants: {a: []}\nmetric: acuracy",
            "4:9: metric.name: unknown metric 'acuracy'; did you mean 'accuracy'?",
        ),
        ("variants: {a: []}\nmetric: top5", "4:9: metric top5 needs evaluation data; add 'data'"),
        ("variants: {a: []}\nmetric: {naem: mse}", "4:10: unknown key 'naem'; did you mean 'name'?"),
        (
            "variants: {a: []}\nhardware: [eyeris-v1]",
            "4:12: unknown hardware 'eyeris-v1'; did you mean 'eyeriss-v1'?",
        ),
        ("variants: {a: []}\nhardware: [chip.yaml]", "4:12: chip.yaml: no such hardware profile"),
        (
            "variants: {a: []}\nhardware: eyeriss-v1",
            '4:11: hardware should be a list, not "eyeriss-v1"',
        ),
        (
            "variants: {a: []}\ndata: {batch_axis: {x: -1}}",
            "4:20: data.batch_axis: should be an axis (0, 1, ...), axes by input name, null or auto",
        ),
        ("variants: {a: !path []}", "3:15: a recipe has no tags such as !path"),
        ("variants: {a: &x [*x]}", "3:15: an alias may not refer to a value that contains it"),
        ("variants: {[a]: b}", "3:12: a key should be a word"),
        ("variants: {a: [}", "3:16: not valid YAML: expected the node content, but found '}'"),
    ],
)
def test_a_mistake_is_one_message_with_its_place(
    line: str, message: str, write: Write, complaint: Complaint
) -> None:
    assert complaint(write(HEAD + line)).startswith(f"recipe.yaml:{message}")


def test_an_impossible_order_names_both_passes(write: Write, complaint: Complaint) -> None:
    tail = "]}\ndata: net.py:data"
    found = complaint(write(f"{HEAD}variants: {{a: [int8-static, prune-channels{tail}"))
    assert found.startswith(
        "recipe.yaml:3:29: variant 'a': prune-channels needs float weights, and int8-static "
    )
    assert found.endswith("before it quantizes them; put prune-channels first")
    found = complaint(write(f"{HEAD}variants: {{a: [int8-static, int8-static{tail}"))
    assert found == "recipe.yaml:3:29: variant 'a': int8-static quantizes, and can do so only once"
    found = complaint(write(f"{HEAD}variants: {{a: [correct-bias{tail}"))
    assert found.endswith("correct-bias mends what another pass quantized; put it behind that one")


def test_a_pass_that_calibrates_needs_data(write: Write, complaint: Complaint) -> None:
    wanted = "3:16: variant 'a': int8-static reads calibration data, and the recipe has none; add 'data'"
    assert complaint(write(HEAD + "variants: {a: [int8-static]}")) == f"recipe.yaml:{wanted}"
    text = HEAD + "variants: {a: [int8-static]}\ndata: {evaluation: net.py:data}"
    assert complaint(write(text)) == f"recipe.yaml:{wanted}"


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("{energy: 5}", "3:18: budget.energy: 5 has no unit; write 5 with one of J, mJ, uJ, nJ, %"),
        (
            "{energy: 5 ms}",
            "3:18: budget.energy: 'ms' is not a unit of energy; write one of J, mJ, uJ, nJ, %",
        ),
        ("{file: 5 KB}", "3:16: budget.file: 'KB' is not a unit of file; did you mean 'kB'?"),
        ("{file: big}", "3:16: budget.file: 'big' is not a limit; write a number with one of B, kB, "),
        ("{drop: 1 J}", "3:16: budget.drop: 'J' is not a unit of drop; write % or no unit"),
        ("{dram: 0%}", "3:16: budget.dram: no variant can keep a limit of 0"),
        ("{enrgy: 5 mJ}", "3:10: unknown key 'enrgy'; did you mean 'energy'?"),
        ("{drop: 1%}", "3:10: a limit on drop needs a metric"),
        (
            "{latency: 1 ms}",
            "3:10: a limit on latency needs data, and 'latency' above 0, the number of timed runs",
        ),
        ("{energy: 1 mJ}", "3:10: a limit on energy needs hardware to estimate it on"),
        (
            "{file: 1 kB, hardware: eyeriss-v1}",
            "3:32: the recipe does not score 'eyeriss-v1': name it under hardware",
        ),
        ("50%", '3:9: budget should be a mapping of keys to values, not "50%"'),
    ],
)
def test_a_budget_must_make_sense(budget: str, message: str, write: Write, complaint: Complaint) -> None:
    text = f"{HEAD}budget: {budget}\nhardware: []\nlatency: 0\nvariants: {{a: []}}"
    assert complaint(write(text)).startswith(f"recipe.yaml:{message}")


def test_a_variants_own_budget_must_make_sense_too(write: Write, complaint: Complaint) -> None:
    path = write(f"{HEAD}variants: {{a: {{passes: [], budget: {{drop: 1 J}}}}}}")
    assert complaint(path) == "recipe.yaml:3:43: budget: drop: 'J' is not a unit of drop; write % or no unit"


def test_a_budget_names_its_profile_as_results_do(write: Write) -> None:
    write("{}", "chips/mine.yaml")
    text = f"{HEAD}hardware: [chips/mine.yaml, eyeriss-v1]\nvariants: {{a: [fold]}}\nbudget: {{energy: 50%}}"
    budget = recipe.load(write(text)).variants[0].budget
    assert budget is not None and budget.hardware == "mine"


DEBRIS = [
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "${",
    "*a",
    "&a ",
    "<<: ",
    "!x ",
    "'",
    "|",
    "#",
    "%",
    "? ",
    "\n",
    "\t",
    "\0",
]
"""What a slip of the hand puts into YAML."""


@given(
    at=st.integers(0, len(FULL)),
    cut=st.integers(0, 6),
    piece=st.sampled_from(DEBRIS) | st.text(max_size=3),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_recipe_is_a_recipe_or_one_message(at: int, cut: int, piece: str, write: Write) -> None:
    path = Path("recipe.yaml")
    path.write_text(FULL[:at] + piece + FULL[at + cut :], encoding="utf-8", errors="replace")
    try:
        recipe.load(path)
    except RecipeError as error:
        assert str(error).startswith("recipe.yaml:") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("{hardware: stm32u57}", "unknown hardware 'stm32u57'; did you mean 'stm32u575'?"),
        ("{limits: {drop: 1%}}", "a limit on the drop needs a metric that has a name"),
        ("{limits: {flash: 3 J}}", "'J' is not a unit of flash"),
        ("{finetune: {epoch: 3}}", "epoch"),
        ("{evaluations: 0}", "evaluations"),
    ],
)
def test_what_is_searched_for_is_checked_before_anything_runs(
    write: Write, complaint: Complaint, search: str, found: str
) -> None:
    told = complaint(write(f"{HEAD}data: net.py:data\nsearch: {search}\n"))
    assert found in told
    assert ":4:" in told


def test_a_search_needs_calibration_data(write: Write, complaint: Complaint) -> None:
    assert "a search needs calibration data; add 'data'" in complaint(write(f"{HEAD}search: {{}}\n"))
