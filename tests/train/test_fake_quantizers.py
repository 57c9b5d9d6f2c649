"""Fake quantizers: their arithmetic, their gradients, and their place in a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from compress.numerics.affine import quantize
from compress.numerics.formats import IntegerFormat
from compress.numerics.granularity import PerAxis
from compress.train.fake_quantizers import FakeQuantizer, insert, scale_name, scales
from compress.trainable.module import Trainable
from compress.trainable.operators.quantization import fake_quantize


def test_fake_quantizer_is_torchaos() -> None:
    from torchao.quantization.quant_primitives import _fake_quantize_affine

    torch.manual_seed(0)
    x = torch.randn(6, 10, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    scale = torch.rand(6) * 0.3 + 0.05
    expected = _fake_quantize_affine(twin, (1, 10), scale, torch.zeros(6), torch.int8, -7, 7)
    result = fake_quantize(x, scale.log(), low=-7, high=7, axis=0)
    torch.testing.assert_close(result, expected)
    weights = torch.randn(6, 10)
    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)


def test_gradient_of_the_scale_is_that_of_learned_step_size_quantization() -> None:
    x = torch.tensor([0.34, -0.12, 5.0, -5.0])
    log_scale = torch.tensor([0.1]).log().requires_grad_()
    fake_quantize(x, log_scale, low=-7, high=7).sum().backward()
    # Esser et al., equation 3: round(v) - v inside the range, its ends outside; times the scale.
    assert log_scale.grad.item() == pytest.approx(0.1 * ((3 - 3.4) + (-1 + 1.2) + 7 - 7), abs=1e-6)


def test_a_weight_is_rounded_in_the_graph_as_it_will_be_stored() -> None:
    graph = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[N,6] x) => (float[N,4] y) <float[6,4] w> { [layer] y = MatMul(x, w) }""")
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    value = ir.val("w", const_value=ir.tensor(weight.numpy(), name="w"))
    graph.graph.register_initializer(value)
    (node,) = graph.graph
    node.replace_input_with(1, value)
    stored = quantize(weight, IntegerFormat(4, PerAxis(1), narrow=True))
    quantizer = FakeQuantizer.of("w", stored)
    insert(graph.graph, value, [(node, 1)], quantizer)
    assert scale_name(quantizer) in graph.graph.initializers
    torch.testing.assert_close(scales(graph.graph, quantizer), quantizer.scale)
    x = np.eye(6, dtype=np.float32)
    (rounded,) = Trainable(graph)(x=torch.from_numpy(x))
    torch.testing.assert_close(rounded, stored.dequantize(), rtol=1e-5, atol=1e-6)
