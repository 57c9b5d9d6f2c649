"""Affine quantization against torchao's primitives and ONNX's reference evaluator."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from compress.numerics.affine import Quantized, quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import Granularity, PerAxis, PerGroup, PerTensor


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, Granularity]:
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    granularity = draw(st.sampled_from([PerTensor(), PerAxis(axis), PerGroup(draw(st.integers(1, 9)), axis)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    weight = torch.randn(shape, generator=generator) * 10 ** draw(st.integers(-4, 4))
    return weight + draw(st.sampled_from([0.0, 1.0, -3.0])), granularity


def by_onnx(weight: torch.Tensor, q: Quantized) -> tuple[np.ndarray, np.ndarray]:
    """Quantize and dequantize with the reference evaluator and the same scales."""
    kind = {True: {8: "INT8", 4: "INT4"}, False: {8: "UINT8", 4: "UINT4"}}[q.format.signed][q.bits]
    elem = getattr(onnx.TensorProto, kind)
    attributes: dict[str, int] = {}
    if not isinstance(q.granularity, PerTensor):
        attributes["axis"] = q.granularity.axis
    if isinstance(q.granularity, PerGroup):
        attributes["block_size"] = q.granularity.size
    zero_point = onnx.helper.make_tensor("z", elem, q.zero_point.shape, q.zero_point.flatten().tolist())
    scale = onnx.numpy_helper.from_array(q.scale.numpy(), "s")
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], **attributes),
            onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], **attributes),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, weight.shape)],
        [
            onnx.helper.make_tensor_value_info("q", elem, weight.shape),
            onnx.helper.make_tensor_value_info("d", onnx.TensorProto.FLOAT, weight.shape),
        ],
        [scale, zero_point],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    values, floats = ReferenceEvaluator(model).run(None, {"w": weight.numpy()})
    return np.asarray(values).astype(np.int32), floats


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from([4, 8]), st.booleans(), st.booleans(), st.sampled_from(["minmax", "mse"]))
def test_agrees_with_the_onnx_operators(case, bits, symmetric, signed, method) -> None:
    weight, granularity = case
    q = quantize(weight, IntegerFormat(bits, granularity, symmetric=symmetric, signed=signed, method=method))
    # The evaluator refuses a shorter last group; ORT does not.
    assume(not isinstance(granularity, PerGroup) or weight.shape[granularity.axis] % granularity.size == 0)
    values, floats = by_onnx(weight, q)
    np.testing.assert_array_equal(q.values.int().numpy(), values)
    np.testing.assert_array_equal(q.dequantize().numpy(), floats)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from([2, 3, 4, 7, 8]), st.booleans(), st.booleans())
def test_agrees_with_torchao(case, bits, symmetric, signed) -> None:
    from torchao.quantization import quant_primitives as ao

    weight, granularity = case
    shape = list(weight.shape)
    if isinstance(granularity, PerTensor):
        block = shape
    elif isinstance(granularity, PerAxis):
        block = list(shape)
        block[granularity.axis] = 1
    else:
        assume(shape[granularity.axis] % granularity.size == 0)
        block = [1] * len(shape)
        block[granularity.axis] = granularity.size
    assume(math.prod(block) > 1)  # torchao takes one scale for all where each element has its own
    low, high = IntegerFormat(bits, signed=signed).limits
    mapping = ao.MappingType.SYMMETRIC if symmetric else ao.MappingType.ASYMMETRIC
    dtype = torch.int8 if signed else torch.uint8
    scale, zero_point = ao.choose_qparams_affine(weight, mapping, tuple(block), dtype, low, high, eps=1e-30)
    theirs = ao.quantize_affine(weight, tuple(block), scale, zero_point, dtype, low, high)
    q = quantize(weight, IntegerFormat(bits, granularity, symmetric=symmetric, signed=signed))
    torch.testing.assert_close(q.scale.flatten(), scale.flatten(), rtol=1e-6, atol=0)
    assert (q.zero_point.int().flatten() - zero_point.flatten()).abs().max() <= (not symmetric)
    same = quantize(
        weight,
        IntegerFormat(bits, granularity, signed=signed),
        scale=scale.flatten(),
        zero_point=zero_point.flatten(),
    )
    # torchao multiplies by the reciprocal, so ties may fall to the other side.
    steps = weight / granularity.expand(scale.reshape(granularity.scale_shape(tuple(shape))), tuple(shape))
    tie = ((steps - steps.floor()) - 0.5).abs() < 1e-4
    assert torch.equal(same.values[~tie], theirs[~tie])
    assert (same.values.int() - theirs.int()).abs().max() <= 1
    restored = ao.dequantize_affine(same.values, tuple(block), scale, zero_point, dtype, low, high)
    torch.testing.assert_close(same.dequantize(), restored)


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(2, 8), st.booleans(), st.booleans())
def test_error_is_at_most_one_step_and_mse_is_never_worse(case, bits, symmetric, signed) -> None:
    weight, granularity = case
    shape = tuple(weight.shape)
    nearest = quantize(weight, IntegerFormat(bits, granularity, symmetric=symmetric, signed=signed))
    step = granularity.expand(nearest.scale, shape)
    assert ((nearest.dequantize() - weight).abs() <= step * 1.001).all()
    searched = quantize(
        weight, IntegerFormat(bits, granularity, symmetric=symmetric, signed=signed, method="mse")
    )
    best, plain = (((q.dequantize() - weight) ** 2).sum() for q in (searched, nearest))
    assert best <= plain * 1.0001 + 1e-10 * (weight**2).sum()


@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_zero_channels_and_tiny_values(method, symmetric) -> None:
    weight = torch.tensor([[0.0, 1e-44], [0.0, 0.0], [0.0, -1e-44]])
    q = quantize(weight, IntegerFormat(8, PerAxis(1), symmetric=symmetric, method=method))
    assert torch.equal(q.scale, torch.full((2,), 2.0**-14)), "small, and a normal number of float16 too"
    assert torch.equal(q.dequantize(), torch.zeros(3, 2))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_names_the_index(bad) -> None:
    weight = torch.ones(3, 4)
    weight[2, 1] = bad
    with pytest.raises(ValueError, match=r"index \[2, 1\]"):
        quantize(weight, IntegerFormat(8, PerTensor()))


def test_largest_floats_do_not_overflow() -> None:
    weight = torch.tensor([3e38, -3e38, 0.0])
    for symmetric in (True, False):
        q = quantize(weight, IntegerFormat(8, PerTensor(), symmetric=symmetric))
        torch.testing.assert_close(q.dequantize(), weight, rtol=0.02, atol=1e30)


def test_seven_bits_keep_pairs_of_products_within_16_bits() -> None:
    q = quantize(torch.randn(64, 8), IntegerFormat(7, PerAxis(1)))
    assert q.values.dtype == torch.int8
    assert q.format.stored_bits == 8
    assert 2 * 255 * int(q.values.int().abs().max()) < 2**15


def test_four_bits_give_the_lowest_integer_to_the_largest_weight() -> None:
    weight = torch.tensor([[8.0, -8.0], [-7.0, 7.0], [2.0, -2.0]])
    q = quantize(weight, IntegerFormat(4, PerAxis(1), method="mse"))
    torch.testing.assert_close(q.dequantize(), weight)
    assert q.values[0].tolist() == [-8, -8]
    assert (quantize(weight, IntegerFormat(4, PerAxis(1), method="mse", narrow=True)).scale > 0).all()
    assert (quantize(weight, IntegerFormat(8, PerAxis(1), method="mse")).scale > 0).all()


def test_narrow_leaves_out_the_lowest() -> None:
    q = quantize(torch.tensor([-1.0, 1.0]), IntegerFormat(8, PerTensor(), narrow=True))
    assert q.values.tolist() == [-127, 127]


def test_bytes_count_scales_and_zero_points() -> None:
    weight = torch.rand(33, 4)
    assert quantize(weight, IntegerFormat(4, PerGroup(16, 0))).bytes == 33 * 4 // 2 + 3 * 4 * 4
    assert (
        quantize(weight, IntegerFormat(3, PerGroup(16, 0), symmetric=False)).bytes
        == 33 * 4 // 2 + 3 * 4 * 4 + 6
    )
    assert quantize(weight, IntegerFormat(8, PerTensor(), signed=False)).bytes == 33 * 4 + 4


def test_bias_of_32_bits_with_a_given_scale() -> None:
    bias = torch.tensor([1e9, -1.0, 3.0])
    q = quantize(bias, IntegerFormat(32, PerAxis(0)), scale=torch.tensor([1e-3, 1e-3, 0.5]))
    assert q.values.tolist() == [2**31 - 1, -1000, 6]
    assert q.values.dtype == torch.int32


def test_recurrent_weights_take_a_scale_for_each_direction_and_row() -> None:
    weight = torch.randn(2, 12, 5)
    q = quantize(weight, IntegerFormat(8, PerGroup(5, 2)))
    assert q.scale.shape == (2, 12, 1)
    assert q.relative_error(weight) < 0.01


def test_wrong_arguments_say_what_is_wrong() -> None:
    weight = torch.ones(4, 4)
    with pytest.raises(ValueError, match="axis 2"):
        quantize(weight, IntegerFormat(8, PerAxis(2)))
    with pytest.raises(ValueError, match=r"takes \[4\]"):
        quantize(weight, IntegerFormat(8, PerAxis(0)), scale=torch.ones(3))


def test_importance_moves_error_to_where_it_does_not_count() -> None:
    weight = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    importance = torch.ones(64, 1)
    importance[:8] = 1000
    plain, weighted = (
        (
            (
                quantize(weight, IntegerFormat(2, PerAxis(1), method="mse"), importance=i).dequantize()
                - weight
            )[:8]
            ** 2
        ).sum()
        for i in (None, importance)
    )
    assert weighted < 0.8 * plain
