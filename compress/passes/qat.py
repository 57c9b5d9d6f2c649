"""Training that knows it will be quantized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from compress import train
from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from compress.graph.layers import Layer
    from compress.model import Model
    from compress.numerics.affine import Quantized
    from compress.numerics.formats import IntegerFormat
    from compress.quantize.plans import Operators
    from compress.quantize.regions import Regions
    from compress.train.fake_quantizers import FakeQuantizer


AUTO_RATE = 3e-4
"""The learning rate where nobody says one."""


class Qat(train.Training, Pass, name="qat"):
    """Train with rounding in place, then store what was trained as integers.

    Fake quantizers round weights and activations while weights and scales are trained. The result is
    the graph of `int8-static` (with float activations, that of `int4-weights`) with the numbers that
    training found. It is more accurate than quantizing afterwards, most of all below eight bits, at
    the price of a training: data, labels and distillation are those of `finetune`. `include` and
    `exclude` choose what is quantized; everything trains. BatchNormalization is folded first.

    Example: ``qat: {weight_bits: 4, epochs: 5, distill: true}``
    """

    quantizes: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True

    weight_bits: Literal[2, 3, 4, 5, 6, 7, 8] = 8
    """Bits of a weight; a file spends 4 or 8 on it."""
    activations: bool = True
    """Whether activations are rounded to eight bits as well."""
    group_size: Literal[16, 32, 64, 128, 256] = 32
    """Weights that share a scale where activations stay float; convolutions have one a channel."""
    learn_scales: bool = True
    """Whether scales are trained, or stay as they were observed."""
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """The highest; it rises to it during the warm-up and falls to zero as a cosine; auto is 0.0003, and
    0.00003 for networks with attention."""

    def apply(self, model: Model) -> list[Change]:
        """Fold, put fake quantizers in, train, and store integers in their place."""
        from compress.graph.fold import fold
        from compress.train.fake_quantizers import scales
        from compress.train.finetuning import fit

        fold(model.ir)
        regions = self._regions(model.graph)
        quantizers = self._activations(model, regions) | self._weights(model.ir, regions)
        student = self._student(model.ir, quantizers)
        outcome = fit(
            model,
            student,
            self._learning(model.ir, quantizers),
            train.Training.of(self),
            auto_rate=AUTO_RATE,
            changed=True,
        )
        for name, value in model.graph.initializers.items():
            value.const_value = student.graph.initializers[name].const_value
        found = {name: scales(student.graph, quantizer) for name, quantizer in quantizers.items()}
        return [Change("all weights", outcome.story()), *self._store(model.graph, regions, quantizers, found)]

    def _regions(self, graph: ir.Graph) -> Regions:
        from compress.quantize.regions import Regions, find

        return find(graph, self.selects) if self.activations else Regions()

    def _bits(self) -> int:
        """Return the bits that a kernel's weights may use on this machine."""
        from compress.cpu import saturates

        return min(self.weight_bits, 7) if saturates() else self.weight_bits

    def _format(self, layer: Layer) -> IntegerFormat:
        """Return the format of a kernel's weight."""
        from compress.numerics.formats import IntegerFormat
        from compress.numerics.granularity import PerAxis

        return IntegerFormat(self._bits(), PerAxis(layer.out_axis), narrow=True)

    def _activations(self, model: Model, regions: Regions) -> dict[str, FakeQuantizer]:
        """Return how each activation of the regions is rounded, by the name of the value."""
        import torch

        from compress.numerics.ranges import Histogram, scale_and_zero_point
        from compress.quantize.static import observe_ranges, range_owner
        from compress.train.fake_quantizers import FakeQuantizer

        owners = {value: range_owner(value, regions.same_as) for value in regions.readers}
        observed = observe_ranges(model, dict.fromkeys(owners.values()), Histogram) if owners else {}
        quantizers = {}
        for value, owner in owners.items():
            scale, zero_point = scale_and_zero_point(*observed[owner.name or ""].range())
            low = -int(zero_point)
            quantizers[value.name or ""] = FakeQuantizer(
                owner.name or "", torch.from_numpy(scale), low, low + 255
            )
        return quantizers

    def _weights(self, model: ir.Model, regions: Regions) -> dict[str, FakeQuantizer]:
        """Return how each weight is rounded, by name; the others are stored in a copy to find out."""
        import torch

        from compress.numerics.affine import quantize
        from compress.train.fake_quantizers import FakeQuantizer

        stored: dict[str, Quantized] = {}
        for layer in regions.kernels:
            weight = torch.from_numpy(layer.array.copy())
            stored[layer.weight.name or ""] = quantize(weight, replace(self._format(layer), method="mse"))
        quantizers = {name: FakeQuantizer.of(name, each) for name, each in stored.items()}
        others = self._store_others(model.clone().graph, regions, lambda name: None)
        return quantizers | {name: FakeQuantizer.of(name, each) for name, (_, each) in others.items()}

    def _store_others(
        self, graph: ir.Graph, regions: Regions, scale_of: Callable[[str], torch.Tensor | None]
    ) -> dict[str, tuple[Change, Quantized]]:
        """Store the weights that no integer kernel takes; return what was stored by the weight's name."""
        from compress.numerics.affine import quantize
        from compress.quantize.plans import Precision, plans
        from compress.quantize.weight_only import store

        kernels = {layer.name for layer in regions.kernels}
        operators: Operators = "standard" if self.activations else "onnxruntime"
        planned, _ = plans(
            graph,
            lambda layer: layer.name not in kernels and self.selects(*layer.names),
            Precision(self.weight_bits, self.group_size, method="mse", fewest_weights=0),
            operators,
        )
        stored: dict[str, tuple[Change, Quantized]] = {}
        for plan in planned:
            name = plan.layer.weight.name or ""
            quantized = quantize(plan.weight(), plan.format, scale=scale_of(name))
            change = store(plan, quantized, operators)
            if change.action:
                stored[name] = change, quantized
        return stored

    def _student(self, model: ir.Model, quantizers: dict[str, FakeQuantizer]) -> ir.Model:
        """Return a copy of the graph with a fake quantizer behind every value that is rounded."""
        from compress.train.fake_quantizers import insert

        student = model.clone()
        for value, readers in self._regions(student.graph).readers.items():
            insert(student.graph, value, readers, quantizers[value.name or ""])
        for name, value in list(student.graph.initializers.items()):
            if name in quantizers:
                readers = [(use.node, use.idx) for use in value.uses()]
                insert(student.graph, value, readers, quantizers[name])
        return student

    def _learning(self, model: ir.Model, quantizers: dict[str, FakeQuantizer]) -> set[str]:
        """Return the names of the initializers that are trained: weights, and scales if asked."""
        from compress.train.fake_quantizers import scale_name
        from compress.trainable.roles import trained_initializers

        learnt = trained_initializers(model)
        if self.learn_scales:
            learnt |= {scale_name(quantizer) for quantizer in quantizers.values()}
        return learnt

    def _store(
        self,
        graph: ir.Graph,
        regions: Regions,
        quantizers: dict[str, FakeQuantizer],
        scales: dict[str, torch.Tensor],
    ) -> list[Change]:
        """Put integers where the fake quantizers were; return a change per layer."""
        import numpy as np
        import torch

        from compress.numerics.affine import quantize
        from compress.quantize.nodes import quantize_activation
        from compress.quantize.static import quantize_kernel

        inputs = {}
        for value, readers in regions.readers.items():
            name = value.name or ""
            step, zero_point = float(scales[name]), np.uint8(-quantizers[name].low)
            quantize_activation(value, step, zero_point, readers, final=value in regions.final)
            inputs[value.name or ""] = step
        story = f"8-bit activations, {self._bits()}-bit weights per channel, trained"
        changes = []
        for layer in regions.kernels:
            weight, scale = torch.from_numpy(layer.array.copy()), scales[layer.weight.name or ""]
            quantized = quantize(weight, self._format(layer), scale=scale)
            changes.append(quantize_kernel(graph, layer, quantized, inputs, story))
        return changes + [change for change, _ in self._store_others(graph, regions, scales.get).values()]
