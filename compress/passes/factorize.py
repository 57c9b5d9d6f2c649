"""Low rank: one layer becomes two thin ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from compress.changes import Change
from compress.passes.base import Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from compress.graph.layers import Layer
    from compress.graph.linear import Array
    from compress.model import Model
    from compress.numerics.lowrank import Spectrum


class Factorize(Pass, name="factorize"):
    """Replace linear layers and convolutions by two thinner ones in a row.

    The rank of every layer is chosen so that the outputs change least on the calibration data. It
    saves bytes and multiplications alike, most on wide linear layers; small convolutional networks
    have little to give, and every factored layer is one more operator to start. `finetune` wins accuracy
    back.

    Example: ``factorize: {ratio: 0.3, include: ["*mlp*"]}``
    """

    ratio: float = Field(default=0.3, gt=0, lt=1)
    """Fraction of the selected layers' weights that is removed, shared out among the layers."""
    error: float | None = Field(default=None, gt=0, lt=1)
    """Largest relative error of a layer's outputs; takes the place of the ratio."""
    importance: Literal["activation", "weight"] = "activation"
    """Whether the error is that of outputs on calibration data, or of the weights."""

    def apply(self, model: Model) -> list[Change]:
        """Factor layers in place."""
        from compress.graph.linear import linear_layers

        chosen: list[Layer] = []
        changes = []
        for layer in linear_layers(model.graph):
            if not self.selects(*layer.names):
                changes.append(Change(layer.name, skipped="include and exclude leave it out"))
            elif layer.node.attributes.get_int("group", 1) != 1:
                changes.append(Change(layer.name, skipped="a grouped convolution is thin already"))
            else:
                chosen.append(layer)
        spectra = self._spectra(model, chosen)
        ranks = self._ranks(spectra)
        return [*(_factor(layer, spectra[layer.name], ranks[layer.name]) for layer in chosen), *changes]

    def _spectra(self, model: Model, chosen: list[Layer]) -> dict[str, Spectrum]:
        import torch

        from compress.graph.linear import matrix
        from compress.graph.moments import second_moments
        from compress.numerics.lowrank import spectrum

        moments = second_moments(model.ir, model.batches(), chosen) if self.importance == "activation" else {}
        return {
            layer.name: spectrum(
                torch.from_numpy(np.array(matrix(layer, layer.array)[0])),
                moments[layer.name].matrix() if moments else None,
            )
            for layer in chosen
        }

    def _ranks(self, spectra: Mapping[str, Spectrum]) -> dict[str, int | None]:
        from compress.numerics.lowrank import rank_for_error, ranks_for_size

        if self.error is None:
            total = sum(found.dense for found in spectra.values())
            return dict(
                zip(spectra, ranks_for_size(list(spectra.values()), (1 - self.ratio) * total), strict=True)
            )
        ranks = {name: rank_for_error(found, self.error) for name, found in spectra.items()}
        return {
            name: r if r * spectra[name].cost < spectra[name].dense else None for name, r in ranks.items()
        }


def _factor(layer: Layer, found: Spectrum, rank: int | None) -> Change:
    if rank is None:
        return Change(layer.name, skipped="two factors would be larger at the error that is allowed")
    left, right = found.left[:, :rank], found.right[:rank]
    full = found.left @ found.right
    error = float((full - left @ right).norm() / full.norm().clamp(min=1e-30))
    before = layer.array.nbytes
    scale = (right.norm(dim=1) / left.norm(dim=0).clamp(min=1e-30)).sqrt()  # both factors equally large
    _replace(layer, (left * scale).numpy(), (right / scale[:, None]).numpy())
    after = 4 * rank * found.cost
    return Change(layer.name, f"rank {rank} of {len(found.energies)}", before, after, error)


def _replace(layer: Layer, left: Array, right: Array) -> None:
    """Put a node with the weight `left` before the layer's own, which goes on with `right`."""
    import onnx_ir as ir

    node, name = layer.node, layer.weight.name or ""
    rank = right.shape[0]
    if node.op_type == "Conv":
        kernel = layer.array.shape[2:]
        first = np.moveaxis(left.T.reshape(rank, *kernel, -1), -1, 1)
        second = right.T.reshape(-1, rank, *[1] * len(kernel))
        attributes = [node.attributes.pop(key) for key in tuple(node.attributes)]
    else:
        first, second, attributes = left, right.T if node.attributes.get_int("transB", 0) else right, []
    weights = [
        _register(node, f"{name}.{part}", content) for part, content in (("left", first), ("right", second))
    ]
    operator = "Conv" if node.op_type == "Conv" else "MatMul"
    thin = ir.Node("", operator, [node.inputs[0], weights[0]], attributes, name=f"{layer.name}.left")
    thin.outputs[0].name = f"{node.outputs[0].name}.left"
    thin.outputs[0].type = node.outputs[0].type
    old = node.inputs[1]
    node.prepend(thin)
    node.replace_input_with(0, thin.outputs[0])
    node.replace_input_with(1, weights[1])
    _drop(old)


def _register(node: ir.Node, name: str, content: Array) -> ir.Value:
    import onnx_ir as ir

    value = ir.val(name, const_value=ir.tensor(np.array(content, np.float32, order="C"), name=name))
    if isinstance(node.graph, ir.Graph):
        node.graph.register_initializer(value)
    return value


def _drop(value: ir.Value | None) -> None:
    """Remove a weight that nothing reads any more, and the Transpose that turned it."""
    if value is None or value.uses() or value.is_graph_output():
        return
    maker = value.producer()
    if maker is None:
        if value.graph is not None:
            value.graph.initializers.pop(value.name or "", None)
        return
    source = maker.inputs[0]
    if maker.graph is not None:
        maker.graph.remove(maker, safe=True)
    _drop(source)
