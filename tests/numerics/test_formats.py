"""Number formats: they print what they read, and refuse what no number can be."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from compress.numerics.formats import FLOATS, CodebookFormat, IntegerFormat, stored_bits
from compress.numerics.granularity import PerAxis, PerGroup, PerTensor

AXES = st.integers(-4, 4)
GRANULARITIES = st.one_of(
    st.just(PerTensor()), st.builds(PerAxis, AXES), st.builds(PerGroup, st.integers(1, 512), AXES)
)
INTEGERS = st.builds(
    IntegerFormat,
    st.integers(2, 32),
    GRANULARITIES,
    symmetric=st.booleans(),
    signed=st.booleans(),
    narrow=st.booleans(),
    method=st.sampled_from(["minmax", "mse"]),
)


@given(INTEGERS)
def test_an_integer_format_reads_what_it_prints(integers):
    assert IntegerFormat.parse(str(integers)) == integers
    assert IntegerFormat.parse(YAML(typ="safe").load(f"format: {integers}")["format"]) == integers


@given(INTEGERS)
def test_limits_hold_as_many_integers_as_the_bits_have(integers):
    low, high = integers.limits
    assert high - low + 1 == 2**integers.bits - integers.narrow
    assert (low < 0) == integers.signed
    assert low < integers.middle <= high
    assert integers.middle == (0 if integers.signed else 2 ** (integers.bits - 1))


@pytest.mark.parametrize(
    ("text", "integers"),
    [
        ("int8", IntegerFormat(8)),
        ("uint4, asymmetric, groups of 32 along axis 0", IntegerFormat(4, PerGroup(32, 0), False, False)),
        ("int7, per axis 1, narrow", IntegerFormat(7, PerAxis(1), narrow=True)),
        ("int3 , mse,per tensor", IntegerFormat(3, method="mse")),
    ],
)
def test_texts_that_people_write(text, integers):
    assert IntegerFormat.parse(text) == integers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("float16", "starts with 'int' or 'uint'"),
        ("int8, asymetric", r"'asymetric' is unknown; did you mean 'asymmetric'\?"),
        ("int4, groups of 0 along axis 1", "group size 0"),
        ("int1", "1 bits: an integer format has 2 to 32"),
        ("uint64", "64 bits"),
        ("int8, per axis", "'per axis' is unknown"),
    ],
)
def test_texts_that_mean_nothing_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        IntegerFormat.parse(text)


def test_the_range_of_kernels_without_vnni_keeps_pairs_of_products_within_16_bits():
    low, high = IntegerFormat(7).limits
    assert 2 * 255 * max(-low, high) < 2**15
    assert IntegerFormat(7).stored_bits == 8
    assert [stored_bits(bits) for bits in (2, 3, 5, 9, 17)] == [2, 4, 8, 16, 32]


def test_formats_are_frozen():
    for each in (IntegerFormat(4), CodebookFormat(16), FLOATS["float16"]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(each, dataclasses.fields(each)[0].name, 8)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16), ("float8e4m3", ml_dtypes.float8_e4m3fn)],
)
def test_floats_are_those_of_their_types(name, kind):
    found, known = FLOATS[name], ml_dtypes.finfo(kind)
    assert str(found) == name
    assert found.bits == known.bits
    assert found.largest == pytest.approx(float(known.max), rel=1e-4)


def test_codebooks_say_what_they_hold():
    assert str(CodebookFormat(16)) == "16 entries per tensor"
    assert str(CodebookFormat(256, 4, 8)) == "256 entries of 4 weights per 8 channels"
    assert [CodebookFormat(entries).code_bits for entries in (2, 4, 5, 16, 17, 256)] == [2, 2, 4, 4, 8, 8]


@pytest.mark.parametrize(
    ("entries", "dimensions", "message"),
    [(1, 1, "1 entries: a codebook has 2 to 256"), (300, 1, "300 entries"), (16, 0, "at least one weight")],
)
def test_codebooks_that_cannot_be_are_refused(entries, dimensions, message):
    with pytest.raises(ValueError, match=message):
        CodebookFormat(entries, dimensions)
