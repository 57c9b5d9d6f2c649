"""YAML as a tree whose values know their places; inheritance, variables and matrices."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from compress import recipe
from compress.passes import Int4Weights
from compress.passes.prune_channels import PruneChannels
from compress.recipe import document

Write = Callable[..., Path]
Complaint = Callable[[Path], str]

HEAD = "version: 1\nmodel: net.py:build\n"
"""Two lines, so that what a test adds begins in line 3."""


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
def test_a_broken_file_is_one_message(text: str, message: str, write: Write, complaint: Complaint) -> None:
    assert complaint(write(text)).startswith(f"recipe.yaml:{message}")


def test_a_file_that_cannot_be_read(write: Write, complaint: Complaint) -> None:
    write("").write_bytes(b"version: 1\n# \xff")
    assert complaint(Path("recipe.yaml")) == "recipe.yaml:2:1: the file is not UTF-8 text"
    assert complaint(Path("recipes.yaml")) == "recipes.yaml: No such file or directory"
    assert complaint(Path()) == ".: Is a directory"


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


def test_mistakes_point_into_the_file_that_holds_them(write: Write, complaint: Complaint) -> None:
    write("version: 1\nmodel: net.py:build\nsede: 1", "shared/base.yaml")
    write("def build(): ...", "shared/net.py")
    path = write("extends: shared/base.yaml\nvariants: {a: []}")
    assert complaint(path) == "shared/base.yaml:3:1: unknown key 'sede'; did you mean 'seed'?"
    path = write("extends: shared/bsae.yaml")
    assert complaint(path) == "recipe.yaml:1:10: shared/bsae.yaml: No such file or directory"
    path = write("extends: [a]")
    assert complaint(path) == 'recipe.yaml:1:10: extends should be the path of a recipe, not ["a"]'


def test_recipes_do_not_extend_themselves(write: Write, complaint: Complaint) -> None:
    write("extends: recipe.yaml", "other.yaml")
    path = write("extends: other.yaml")
    assert (
        complaint(path) == "other.yaml:1:10: extends leads back to recipe.yaml: a recipe cannot extend itself"
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
            "4:12: ${l} is a list or a mapping, which cannot stand inside text",
        ),
        ("vars: [1]", "3:7: vars should be a mapping of keys to values, not [1]"),
        ("matrix: {x: 3}\nvariants: {a: []}", "3:13: matrix axis 'x' should be a list of values, not 3"),
        ("vars: {x: 1}\nmatrix: {x: [3]}", "4:10: 'x' is in vars and in matrix; rename one"),
        (
            "matrix: {x: [a, b], y: [1, 2]}\nvariants: {'v${y}': [fold: {include: ['${x}']}]}",
            "4:12: two variants are called 'v1'; put ${x} into the name",
        ),
        ("vars: {x: a}\nvariants: {'${x}': [], a: []}", "4:24: two variants are called 'a'"),
        ("vars: {x: a}\nshapes: {'${x}': [1], a: [2]}", "4:23: two keys are called 'a'"),
    ],
)
def test_mistakes_of_composition(line: str, message: str, write: Write, complaint: Complaint) -> None:
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
