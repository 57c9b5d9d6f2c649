import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from compress import recipe
from compress.errors import RecipeError
from compress.passes import Int4Weights
from compress.passes.fold import Fold
from compress.passes.int8_static import Int8Static
from compress.passes.prune_channels import PruneChannels
from compress.recipe import document, schema

Write = Callable[..., Path]

HEAD = "version: 1\nmodel: net.py:build\n"
"""Two lines, so that what a test adds begins in line 3."""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("def build(): ...\ndef data(): ...\nscore = print\n")

    def write(text: str, path: str = "recipe.yaml") -> Path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
        return Path(path)

    return write


def complaint(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FULL = """
# What a small camera can afford.
version: 1
model: net.py:build
data: {calibration: net.py:data, evaluation: net.py:score}
metric: mse
hardware: [eyeriss-v1]
budget: {energy: 50%, drop: 0.01}
seed: 7
threads: 1
latency: 5
shapes: {x: [1, 3, 8, 8]}
variants:
  original: []
  int8:
    - prune-channels: {ratio: 0.25}
    - int8-static
  int4:
    passes: [{int4-weights: {group_size: 64}}]
    budget: {file: 300 kB}
"""


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
            "3:16: the pass 'float16' has a new name: write float-weights: {format: float16}",
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
        ("variants: {a: !path []}", "3:15: tags such as !path mean nothing here"),
        ("variants: {a: &x [*x]}", "3:15: an alias may not stand for something that contains it"),
        ("variants: {[a]: b}", "3:12: a key should be a word"),
        ("variants: {a: [}", "3:16: not valid YAML: expected the node content, but found '}'"),
    ],
)
def test_a_mistake_is_one_message_with_its_place(line: str, message: str, write: Write) -> None:
    assert complaint(write(HEAD + line)).startswith(f"recipe.yaml:{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: the file is empty; a recipe begins with 'version: 1'"),
        ("# Nothing else.", "1:1: the file is empty"),
        ("- 1", "1:1: a recipe should be a mapping of keys to values, not [1]"),
        ("version: 1\nvariants: {a: []}", "1:1: 'model' is missing"),
        (HEAD, "1:1: 'variants' is missing; name at least one, such as 'int8: [int8-static]'"),
        ("version: 2\nmodel: net.py:build\nvariants: {a: []}", "1:10: version should be 1, not 2"),
        (f"{HEAD}\tvariants:", "3:1: not valid YAML: found character '\\t' that cannot start any token"),
        (f"{HEAD}variants: {{}}\n---\na: 1", "4:1: not valid YAML: but found another document"),
        ("\x01", "1:1: not valid YAML: unacceptable character"),
        ("[" * 500, "1:1: values are nested too deeply"),
        (
            f"{HEAD}a: &a [x, x]\nb: &b [{'*a, ' * 100}]\nvariants: [{'*b, ' * 50}]",
            f"3:11: more than {document.MAX_VALUES} values, aliases written out",
        ),
        (f"version: {'9' * 5000}", "1:10: '99999999999999999999' is not a number"),
    ],
)
def test_a_broken_file_is_one_message(text: str, message: str, write: Write) -> None:
    assert complaint(write(text)).startswith(f"recipe.yaml:{message}")


def test_a_file_that_cannot_be_read(write: Write) -> None:
    write("").write_bytes(b"version: 1\n# \xff")
    assert complaint(Path("recipe.yaml")) == "recipe.yaml:2:1: the file is not UTF-8 text"
    assert complaint(Path("recipes.yaml")) == "recipes.yaml: No such file or directory"
    assert complaint(Path()) == ".: Is a directory"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("net.py", "'net.py' names no function; write net.py:function"),
        ("net.py:biuld", "net.py defines no 'biuld'; did you mean 'build'?"),
        ("nett.py:build", "nett.py: No such file or directory; did you mean 'net.py'?"),
        ("bad.py:build", "bad.py:1: not valid Python: "),
        ("net.onxx", "net.onxx: no such file or folder"),
        ("empty", "empty: a folder is a model only with a config.json (Hugging Face)"),
        (
            "weights.pth",
            "weights.pth: a model is an .onnx or .pt2 file, a Hugging Face folder, or file.py:function",
        ),
        ("package:no_such_package/x.onnx", "package:no_such_package/x.onnx: no package 'no_such_package'"),
        ("package:numpy.linalg/x", "'package:numpy.linalg/x' should be package:NAME/inner/path"),
        ("package:numpy/../secret.onnx", "'package:numpy/../secret.onnx' should be package:NAME/inner/path"),
    ],
)
def test_the_model_must_exist(model: str, message: str, write: Write) -> None:
    Path("empty").mkdir()
    Path("bad.py").write_text("def build(:")
    Path("weights.pth").touch()
    found = complaint(write(f"version: 1\nvariants: {{a: []}}\nmodel: {model}"))
    assert found.startswith("recipe.yaml:3:8: ")
    assert message in found


def test_a_model_may_come_with_an_installed_package(write: Write) -> None:
    import jsonschema

    inner = Path(jsonschema.__file__).with_name("model.onnx")
    text = "version: 1\nvariants: {a: []}\nmodel: package:jsonschema/"
    assert f"{inner}: no such file" in complaint(write(text + "model.onnx"))
    assert "config.json" in complaint(write(text + "tests"))


def test_functions_are_found_without_running_the_file(write: Write) -> None:
    write("raise SystemExit\nfrom os import path as build\nif True:\n    data = 1\n", "net.py")
    assert recipe.load(write(HEAD + "data: net.py:data\nvariants: {a: []}")).model == "net.py:build"
    message = complaint(write(HEAD + "data: data\nvariants: {a: []}"))
    assert message == "recipe.yaml:3:7: 'data' should be file.py:function"


def test_an_impossible_order_names_both_passes(write: Write) -> None:
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


def test_a_pass_that_calibrates_needs_data(write: Write) -> None:
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
        ("{dram: 0%}", "3:16: budget.dram: nothing can keep a limit of 0"),
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
def test_a_budget_must_make_sense(budget: str, message: str, write: Write) -> None:
    text = f"{HEAD}budget: {budget}\nhardware: []\nlatency: 0\nvariants: {{a: []}}"
    assert complaint(write(text)).startswith(f"recipe.yaml:{message}")


def test_a_variants_own_budget_must_make_sense_too(write: Write) -> None:
    path = write(f"{HEAD}variants: {{a: {{passes: [], budget: {{drop: 1 J}}}}}}")
    assert complaint(path) == "recipe.yaml:3:43: budget: drop: 'J' is not a unit of drop; write % or no unit"


def test_a_budget_names_its_profile_as_results_do(write: Write) -> None:
    write("{}", "chips/mine.yaml")
    text = f"{HEAD}hardware: [chips/mine.yaml, eyeriss-v1]\nvariants: {{a: [fold]}}\nbudget: {{energy: 50%}}"
    budget = recipe.load(write(text)).variants[0].budget
    assert budget is not None and budget.hardware == "mine"


def test_a_recipe_extends_another(write: Write) -> None:
    write("# Base.\nversion: 1\nmodel: net.py:build\nseed: 1\nvariants: {a: [], b: [fold]}", "base.yaml")
    loaded = recipe.load(write("# Mine.\nextends: base.yaml\nseed: 2\nvariants: {b: [], c: [fold]}"))
    assert loaded.title == "Mine."
    assert loaded.seed == 2
    assert [(variant.name, len(variant.passes)) for variant in loaded.variants] == [
        ("a", 0),
        ("b", 0),
        ("c", 1),
    ]


def test_paths_are_relative_to_the_recipe_that_names_them(write: Write) -> None:
    write("def build(): ...", "shared/net.py")
    write("{}", "shared/chip.yaml")
    write("version: 1\nmodel: net.py:build\nhardware: [chip.yaml]", "shared/base.yaml")
    loaded = recipe.load(write("extends: ../shared/base.yaml\nvariants: {a: []}", "mine/recipe.yaml"))
    assert loaded.model == "../shared/net.py:build"
    assert (loaded.home / "../shared/net.py").exists()
    assert Path(loaded.hardware[0]).exists()


def test_mistakes_point_into_the_file_that_holds_them(write: Write) -> None:
    write("version: 1\nmodel: net.py:build\nsede: 1", "shared/base.yaml")
    write("def build(): ...", "shared/net.py")
    path = write("extends: shared/base.yaml\nvariants: {a: []}")
    assert complaint(path) == "shared/base.yaml:3:1: unknown key 'sede'; did you mean 'seed'?"
    path = write("extends: shared/bsae.yaml")
    assert complaint(path) == "recipe.yaml:1:10: shared/bsae.yaml: No such file or directory"
    path = write("extends: [a]")
    assert complaint(path) == 'recipe.yaml:1:10: extends should be the path of a recipe, not ["a"]'


def test_recipes_do_not_extend_themselves(write: Write) -> None:
    write("extends: recipe.yaml", "other.yaml")
    path = write("extends: other.yaml")
    assert (
        complaint(path) == "other.yaml:1:10: extends comes back to recipe.yaml, which is being read already"
    )


def test_names_stand_for_values(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED", "12")
    text = """
vars: {folder: net, source: "${folder}.py", sizes: [1, 2], ratio: 0.5}
version: 1
model: ${source}:build
seed: ${env:SEED}
shapes: {x: "${sizes}"}
variants: {"half-${ratio}": [prune-channels: {ratio: "${ratio}"}]}
"""
    loaded = recipe.load(write(text))
    assert loaded.model == "net.py:build"
    assert loaded.seed == 12
    assert loaded.shapes == {"x": (1, 2)}
    assert loaded.variants[0].name == "half-0.5"
    assert loaded.variants[0].passes == (PruneChannels(ratio=0.5),)


def test_a_matrix_repeats_the_variants_that_mention_it(write: Write) -> None:
    text = """
matrix: {size: [32, 64], clip: [mse, minmax]}
variants:
  original: []
  int4-${size}: [int4-weights: {group_size: "${size}"}]
  int4-${clip}-${size}: [int4-weights: {group_size: "${size}", clip: "${clip}"}]
"""
    loaded = recipe.load(write(HEAD + text))
    names = [
        "original",
        "int4-32",
        "int4-64",
        "int4-mse-32",
        "int4-minmax-32",
        "int4-mse-64",
        "int4-minmax-64",
    ]
    assert sorted(variant.name for variant in loaded.variants) == sorted(names)
    last = next(variant for variant in loaded.variants if variant.name == "int4-minmax-64")
    assert last.passes == (Int4Weights(group_size=64, clip="minmax"),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("variants: {a: [fold: {include: ['${x}']}]}", "3:33: nothing is called ${x}"),
        (
            "vars: {size: 1}\nvariants: {'${sizes}': []}",
            "4:12: nothing is called ${sizes}; did you mean 'size'?",
        ),
        ("variants: {'${env:NOT_SET}': []}", "3:12: environment variable 'NOT_SET' is not set"),
        (
            "vars: {l: [1]}\nvariants: {'a${l}': []}",
            "4:12: ${l} is no single value and cannot stand inside of text",
        ),
        ("vars: [1]", "3:7: vars should be a mapping of keys to values, not [1]"),
        ("matrix: {x: 3}\nvariants: {a: []}", "3:13: matrix axis 'x' should be a list of values, not 3"),
        ("vars: {x: 1}\nmatrix: {x: [3]}", "4:10: 'x' is in vars and in matrix; rename one"),
        (
            "matrix: {x: [a, b], y: [1, 2]}\nvariants: {'v${y}': [fold: {include: ['${x}']}]}",
            "4:12: two variants come out as 'v1'; put ${x} into the name",
        ),
        ("vars: {x: a}\nvariants: {'${x}': [], a: []}", "4:24: two variants come out as 'a'"),
        ("vars: {x: a}\nshapes: {'${x}': [1], a: [2]}", "4:23: two keys come out as 'a'"),
    ],
)
def test_mistakes_of_composition(line: str, message: str, write: Write) -> None:
    assert complaint(write(HEAD + line)) == f"recipe.yaml:{message}"


def test_merge_keys_and_aliases_work(write: Write) -> None:
    text = "vars:\n  base: &base {clip: mse, group_size: 64}\n"
    text += "variants:\n  a: [int4-weights: {<<: *base, group_size: 16}]\n"
    assert recipe.load(write(HEAD + text)).variants[0].passes == (Int4Weights(clip="mse", group_size=16),)


_WORDS = st.text("abcxyz -_.0123456789", max_size=8)
_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(tree=st.dictionaries(_WORDS.map("key{}".format), _TREES, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_document_reads_as_plain_yaml_does(tree: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "tree.yaml"
    with path.open("w") as stream:
        YAML(typ="safe", pure=True).dump(tree, stream)
    assert document.read(path).plain() == tree


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


def test_the_schema_accepts_what_the_loader_accepts(write: Write) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    plain = YAML(typ="safe").load(FULL)
    validator.validate(plain)
    validator.validate({**plain, "seed": "${env:SEED}", "variants": {"a": [{"fold": None}, "${pass}"]}})
    validator.validate({"extends": "other.yaml"})
    for wrong in ({"sede": 1}, {"seed": "five"}, {"variants": {"a": ["flod"]}}, {"budget": {"file": "3 J"}}):
        assert not validator.is_valid({**plain, **wrong})


def test_the_schema_describes_every_setting() -> None:
    described = schema()
    ratio = described["$defs"]["PruneChannels"]["properties"]["ratio"]
    assert ratio["default"] == PruneChannels().ratio
    assert ratio["description"].startswith("Fraction of the channels")
    assert described["properties"].keys() >= {"extends", "vars", "matrix", "variants", "model", "budget"}
