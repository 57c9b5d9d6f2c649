"""What an error of a weight costs, against networks whose cost is known."""

import numpy as np
import pytest
import torch

import compress
from compress.errors import DataError
from compress.quantize.curvature import curvature


def test_of_one_linear_layer_is_the_mean_square_of_its_inputs(build, normal):
    """An error e adds ``x² e²`` to the noise at one output, summed over all inputs x of its feature."""
    inputs = normal(400, 6) * np.array([4, 2, 1, 1, 0.5, 0], np.float32)
    model = compress.load(
        build("g (float[N,6] x) => (float[N,64] y) { y = MatMul(x, w) }", w=normal(6, 64)),
        calibration=[{"x": inputs}],
    )
    found = curvature(model, ["w"])["w"]
    signal = np.square(model.run({"x": inputs})[0]).sum()
    expected = np.square(inputs).sum(0) / signal
    # Six probes of 64 outputs: the mean of so many squares is within 7 % in two cases of three.
    np.testing.assert_allclose(found.mean(1).numpy(), expected, rtol=0.3, atol=1e-9)
    assert (found[5] == 0).all()


def test_errors_behind_a_larger_factor_cost_more(build, normal):
    text = (
        "g (float[N,8] x) => (float[N,4] y) { a = MatMul(x, w) b = MatMul(x, v) c = Mul(b, k) y = Add(a, c) }"
    )
    weight = normal(8, 4)
    model = compress.load(
        build(text, w=weight, v=weight, k=np.array(10, np.float32)), calibration=[{"x": normal(64, 8)}]
    )
    found = curvature(model, ["w", "v"])
    assert float(found["v"].mean() / found["w"].mean()) == pytest.approx(100, rel=1e-3)


def test_the_same_every_time_and_nothing_for_no_weights(digits):
    names = [name for name, value in digits.graph.initializers.items() if len(value.shape or ()) == 4]
    one, two = (curvature(digits, names) for _ in range(2))
    assert set(one) == set(names)
    assert all(torch.equal(one[name], two[name]) for name in names)
    assert curvature(digits, []) == {}


def test_without_data_there_is_none(build, normal):
    model = compress.load(build("g (float[N,6] x) => (float[N,5] y) { y = MatMul(x, w) }", w=normal(6, 5)))
    with pytest.raises(DataError):
        curvature(model, ["w"])
