"""Inputs with a default: a caller may replace such an initializer, so no pass may take it for a constant."""

from __future__ import annotations

import onnx_ir as ir

from compress.data import DEFAULT
from compress.graph.files import FREE_INITIALIZERS


def hold(model: ir.Model) -> None:
    """Make every input with a default a plain input until `release`; what it defaults to is kept with it.

    Initializers of formats so old that they had to be inputs could never be replaced: they are constants.
    """
    if (model.ir_version or 0) < FREE_INITIALIZERS:
        return
    for value in model.graph.inputs:
        if value.const_value is not None:
            value.meta[DEFAULT] = value.const_value
            del model.graph.initializers[value.name or ""]
            value.const_value = None


def release(model: ir.Model) -> None:
    """Give held inputs their defaults back."""
    for value in model.graph.inputs:
        if DEFAULT in value.meta:
            value.const_value = value.meta.pop(DEFAULT)
            model.graph.register_initializer(value)
