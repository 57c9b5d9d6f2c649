"""Operators that bring many elements together: normalizations, pools, softmax and reductions."""

from __future__ import annotations

from functools import partial

from compress.graph.facts.record import MICROSOFT, ML, Operator

_normalized = partial(Operator, cost="normalization", normalizes=True)
_invariant = partial(_normalized, scale_invariant=True)
_skip = partial(_normalized, domain=MICROSOFT, operands=2, scale=2, channel_axis=-1)
_pool = partial(Operator, cost="pool", channel_axis=1)
_softmax = partial(Operator, cost="softmax")
_reduced = partial(Operator, cost="reduction")

STATISTICS = (
    _invariant("GroupNormalization", scale=1, bias=2, channel_axis=1),
    _invariant("InstanceNormalization", scale=1, bias=2, channel_axis=1),
    _invariant("LayerNormalization", scale=1, bias=2, channel_axis=-1),
    _invariant("LpNormalization"),
    _normalized("LRN", channel_axis=1, zeros="keeps"),
    _invariant("MeanVarianceNormalization", channel_axis=1),
    _invariant("RMSNormalization", scale=1, channel_axis=-1),
    _invariant("SimplifiedLayerNormalization", scale=1, channel_axis=-1),
    _invariant("GroupNorm", domain=MICROSOFT, scale=1, bias=2, channel_axis=-1),
    _skip("SkipGroupNorm", operands=1, scale=1, bias=2),
    _skip("SkipLayerNormalization", bias=3),
    _skip("SkipSimplifiedLayerNormalization"),
    _invariant("Normalizer", domain=ML),
    # Pools
    _pool("AveragePool", linear=True, homogeneous=True, monotone=True, on_integers="computes"),
    _pool("GlobalAveragePool", linear=True, homogeneous=True, monotone=True, on_integers="computes"),
    _pool("GlobalLpPool", homogeneous=True),
    _pool("GlobalMaxPool", homogeneous=True, monotone=True, moves_only=True, by_index=True),
    _pool("LpPool", homogeneous=True),
    # A maximum is zero far more often where its window is, but not always.
    _pool("MaxPool", homogeneous=True, monotone=True, zeros="keeps", on_integers="passes"),
    _pool("MaxRoiPool", homogeneous=True, monotone=True),
    _pool("MaxUnpool", operands=2, linear=True, homogeneous=True, monotone=True),
    _pool("NhwcMaxPool", domain=MICROSOFT, channel_axis=-1),
    _pool("QLinearAveragePool", domain=MICROSOFT),
    _pool("QLinearGlobalAveragePool", domain=MICROSOFT),
    # Probabilities
    _softmax("Hardmax", scale_invariant=True),
    _softmax("LogSoftmax"),
    _softmax("NegativeLogLikelihoodLoss", operands=2),
    _softmax("Softmax"),
    _softmax("SoftmaxCrossEntropyLoss", operands=2),
    _softmax("QLinearSoftmax", domain=MICROSOFT),
    # Reductions
    _reduced("ArgMax", scale_invariant=True),
    _reduced("ArgMin", scale_invariant=True),
    _reduced("Det"),
    _reduced("GridSample", operands=2, linear=True, homogeneous=True),
    _reduced("NonMaxSuppression", operands=2),
    _reduced("ReduceL1", homogeneous=True),
    _reduced("ReduceL2", homogeneous=True),
    _reduced("ReduceLogSum", monotone=True),
    _reduced("ReduceLogSumExp", monotone=True),
    _reduced("ReduceMax", homogeneous=True, monotone=True),
    _reduced("ReduceMean", linear=True, homogeneous=True, monotone=True),
    _reduced("ReduceMin", homogeneous=True, monotone=True),
    _reduced("ReduceProd"),
    _reduced("ReduceSum", linear=True, homogeneous=True, monotone=True),
    _reduced("ReduceSumSquare"),
    _reduced("RoiAlign", operands=2),
    _reduced("TopK", homogeneous=True, monotone=True),
    _reduced("Unique"),
)
