"""ONNX operators as small torch functions, one file a family, entered in one table.

All hold for opsets 11 and newer. Where a meaning changed with the opset there is one function for
each meaning, and `lookup` finds the right one.
"""

from __future__ import annotations

from compress.trainable.operators import (  # noqa: F401  (each family registers its operators)
    activation,
    attention,
    convolution,
    elementwise,
    fused,
    indexing,
    layout,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resize,
    signal,
)
from compress.trainable.operators.table import Operator, Role, lookup, names, operator, torch_type

__all__ = ["Operator", "Role", "lookup", "names", "operator", "torch_type"]
