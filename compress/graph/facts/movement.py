"""Operators that put elements elsewhere, choose some of them, or only look at a shape."""

from __future__ import annotations

from functools import partial

from compress.graph.facts.record import LAYOUTS, MICROSOFT, Operator, Weight, each

_moved = partial(Operator, cost="layout", moves_only=True, linear=True, homogeneous=True, monotone=True)
_chosen = partial(_moved, cost="selection")
_view = partial(_moved, cost="view", zeros="keeps")
_filled = partial(Operator, cost="layout", linear=True, monotone=True)
"""Moves elements, and puts others between them."""
_early = partial(Operator, cost="early")
_quantized = partial(Operator, domain=MICROSOFT, codes="packed")

MOVEMENT = (
    *each(_view, "Flatten", "Reshape", "Squeeze", "Unsqueeze", on_integers="passes"),
    _view("Identity", elementwise=True),
    # As it runs once trained; nothing drops out then.
    _view("Dropout", elementwise=True),
    Operator("Optional", cost="view"),
    Operator("OptionalGetElement", cost="view"),
    # Known before the run
    *each(_early, "Constant", "ConstantOfShape", "Range", operands=0),
    *each(_early, "OptionalHasElement", "Shape", "Size"),
    # Everything moved
    _moved("Concat", operands=None, homogeneous=False, on_integers="computes"),
    *each(_moved, "Expand", "Tile"),
    _moved("ReverseSequence", by_index=True),
    _moved("Transpose", zeros="keeps", on_integers="passes"),
    *each(_chosen, "DepthToSpace", "SpaceToDepth", zeros="keeps"),
    # Some of it chosen
    _chosen("Compress", by_index=True, sized_by_data=True),
    *each(_chosen, "GatherElements", "GatherND", by_index=True),
    _chosen("Gather", by_index=True, weights=(Weight(0, 0, None),)),
    _chosen("Slice", on_integers="passes"),
    _chosen("Split", on_integers="passes"),
    # With other values between
    _filled("AffineGrid", monotone=False),
    *each(_filled, "CenterCropPad", "Col2Im", "Pad"),
    _filled("NonZero", linear=False, monotone=False, sized_by_data=True),
    _filled("OneHot", linear=False, monotone=False),
    _filled("Resize", homogeneous=True, on_integers="passes"),
    Operator("Scatter", cost="layout", operands=3),
    *each(_filled, "ScatterElements", "ScatterND", operands=3, by_index=True),
    _filled("TensorScatter", operands=2, by_index=True),
    _filled("Upsample", homogeneous=True),
    # Sequences, which hold tensors without moving them
    *each(Operator, "SequenceAt", "SequenceConstruct", "SequenceErase", "SequenceInsert", cost="view"),
    *each(_early, "SequenceEmpty", "SequenceLength"),
    Operator("ConcatFromSequence", cost="layout"),
    Operator("SplitToSequence", cost="selection"),
    # ONNX Runtime's own
    Operator("QLinearConcat", domain=MICROSOFT, cost="layout", operands=None),
    Operator("ReorderInput", domain=LAYOUTS[0], cost="layout"),
    Operator("ReorderOutput", domain=LAYOUTS[0], cost="layout"),
    _quantized("GatherBlockQuantized", cost="selection", by_index=True, weights=(Weight(0, 0, None),)),
    Operator(
        "EmbedLayerNormalization",
        domain=MICROSOFT,
        cost="selection",
        operands=2,
        weights=(Weight(2, 0, None), Weight(3, 0, None), Weight(4, 0, None)),
    ),
)
