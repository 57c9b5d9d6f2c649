"""Upper bounds of the shapes of operators whose output's size depends on the data."""

from __future__ import annotations

import onnx_ir as ir

from compress.graph.shape_rules.call import Call, Outputs
from compress.graph.tensor_info import TensorInfo

INT64 = ir.DataType.INT64


def places_of_nonzeros(call: Call) -> Outputs:
    """NonZero: as if no element were zero."""
    return [TensorInfo((len(call[0].shape), call[0].elements), INT64)]


def chosen(call: Call) -> Outputs:
    """Compress: as if everything were chosen."""
    if "axis" in call.node.attributes:
        return [call[0]]
    return [call[0]._replace(shape=(call[0].elements,))]


def distinct(call: Call) -> Outputs:
    """Unique: as if no element came twice."""
    axis = call.node.attributes.get_int("axis", None)
    count = call[0].elements if axis is None else call[0].shape[axis]
    whole = call[0]._replace(shape=(count,)) if axis is None else call[0]
    return [whole, *[TensorInfo((count,), INT64)] * 3]


def boxes(call: Call) -> Outputs:
    """NonMaxSuppression: as many boxes of each class of each image as are asked for, or as there are."""
    images, count, classes = call[0].shape[0], call[0].shape[1], call[1].shape[1]
    asked = call.number(2)
    most = count if asked is None else min(count, asked)
    return [TensorInfo((images * classes * most, 3), INT64)]
