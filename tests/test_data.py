"""Batches as they are read: checked against the model, and read afresh by every loop."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

import compress
from compress.data import Data, shapes
from compress.errors import DataError

GOOD = np.ones((2, 4), np.float32)


@pytest.fixture(scope="module")
def inputs(build):
    text = (
        "g (float[N,4] x, int64[N,T] tokens) => (float[N,4] y, int64[N,T] t) { y = Relu(x) t = Neg(tokens) }"
    )
    return compress.load(build(text)).graph.inputs


def read(source, inputs):
    return list(Data(source).batches(inputs))


TOKENS = np.ones((2, 3), np.int64)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (GOOD, r"batch 0: the model has inputs \['tokens', 'x'\]"),
        ({"x": GOOD}, "batch 0: input 'tokens' is missing"),
        ({"x": GOOD, "token": TOKENS}, "no input 'token'; did you mean 'tokens'"),
        ({"x": GOOD[:, :3], "tokens": TOKENS}, r"input 'x': shape 2x3 where the model takes \?x4"),
        ({"x": GOOD[0], "tokens": TOKENS}, r"input 'x': shape 4 where the model takes \?x4"),
        ({"x": GOOD, "tokens": GOOD}, "input 'tokens': type float32 where the model takes int64"),
        ({"x": GOOD.astype(complex), "tokens": TOKENS}, "input 'x': type complex128"),
        ({"x": np.array([["a"] * 4]), "tokens": TOKENS}, "input 'x': type"),
        ({"x": GOOD * np.nan, "tokens": TOKENS}, "input 'x': holds NaN or infinite"),
        ({"x": GOOD * np.inf, "tokens": TOKENS}, "input 'x': holds NaN or infinite"),
        ({"x": GOOD.astype(np.float64) * 1e300, "tokens": TOKENS}, "input 'x': holds NaN or infinite"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(inputs, batch, message):
    with pytest.raises(DataError, match=message):
        read([batch], inputs)


def test_the_number_of_the_bad_batch_is_given(inputs):
    good = {"x": GOOD, "tokens": TOKENS}
    with pytest.raises(DataError, match="calibration data, batch 2"):
        read([good, good, {"x": GOOD}], inputs)


def test_data_without_batches_and_one_shot_data_are_refused(inputs):
    with pytest.raises(DataError, match="there are no batches"):
        read([], inputs)
    with pytest.raises(DataError, match="can be read only once"):
        Data(iter([GOOD]), "evaluation")
    with pytest.raises(DataError, match="calibration data: ZeroDivisionError"):
        read(lambda: 1 / 0, inputs)
    with pytest.raises(DataError, match="calibration data: TypeError: 'int' object is not iterable"):
        read(3, inputs)


def test_batches_are_converted_and_read_again(inputs):
    batch = (
        {"x": torch.ones(2, 4, dtype=torch.float64, requires_grad=True), "tokens": TOKENS.tolist()},
        [1, 0],
    )
    data = Data(lambda: iter([batch] * 3))
    for _ in range(2):
        found = list(data.batches(inputs))
        assert len(found) == 3
        feeds, labels = found[0]
        assert labels == [1, 0]
        assert (feeds["x"].dtype, feeds["tokens"].dtype) == (np.float32, np.int64)
    assert len(list(data.limited(2).batches(inputs))) == 2


def test_a_sequence_is_a_list_of_arrays():
    tensor = ir.TensorType(ir.DataType.FLOAT)
    sequence = ir.Value(name="parts", type=ir.SequenceType(tensor), shape=ir.Shape(["N", 4]))
    ((feeds, _),) = read([{"parts": [GOOD.tolist(), GOOD]}], [sequence])
    assert [part.dtype for part in feeds["parts"]] == [np.float32] * 2
    assert shapes(feeds | {"x": GOOD}) == {"x": GOOD.shape}
    with pytest.raises(DataError, match="give a list of arrays"):
        read([{"parts": GOOD}], [sequence])
    with pytest.raises(DataError, match="item 1: shape 3 where the model takes"):
        read([{"parts": [GOOD, np.ones(3)]}], [sequence])


def test_an_optional_may_be_left_out():
    maybe = ir.Value(name="maybe", type=ir.OptionalType(ir.TensorType(ir.DataType.FLOAT)))
    assert read([{"maybe": None}], [maybe]) == [({"maybe": None}, None)]
    assert read([{"maybe": [1, 2]}], [maybe])[0][0]["maybe"].dtype == np.float32
