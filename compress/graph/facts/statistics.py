"""Operators that bring many elements together: normalizations, pools, softmax and reductions."""

from __future__ import annotations

from functools import partial

from compress.graph.facts.record import MICROSOFT, ML, Operator, each

_normalized = partial(Operator, cost="normalization", normalizes=True)
_invariant = partial(_normalized, scale_invariant=True)
_skip = partial(_normalized, domain=MICROSOFT, operands=2, scale=2, channel_axis=-1)
_pool = partial(Operator, cost="pool", channel_axis=1)
_softmax = partial(Operator, cost="softmax")
_reduced = partial(Operator, cost="reduction")

STATISTICS = (
    *each(_invariant, "GroupNormalization", "InstanceNormalization", scale=1, bias=2, channel_axis=1),
    _invariant("LayerNormalization", scale=1, bias=2, channel_axis=-1),
    _invariant("LpNormalization"),
    _normalized("LRN", channel_axis=1, zeros="keeps"),
    _invariant("MeanVarianceNormalization", channel_axis=1),
    *each(_invariant, "RMSNormalization", "SimplifiedLayerNormalization", scale=1, channel_axis=-1),
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
    *each(_softmax, "LogSoftmax", "Softmax"),
    *each(_softmax, "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", operands=2),
    _softmax("QLinearSoftmax", domain=MICROSOFT),
    # Reductions
    *each(_reduced, "ArgMax", "ArgMin", scale_invariant=True),
    *each(_reduced, "Det", "ReduceProd", "ReduceSumSquare"),
    _reduced("GridSample", operands=2, linear=True, homogeneous=True),
    _reduced("NonMaxSuppression", operands=2, sized_by_data=True),
    _reduced("RoiAlign", operands=2),
    *each(_reduced, "ReduceL1", "ReduceL2", homogeneous=True),
    *each(_reduced, "ReduceLogSum", "ReduceLogSumExp", monotone=True),
    *each(_reduced, "ReduceMax", "ReduceMin", "TopK", homogeneous=True, monotone=True),
    *each(_reduced, "ReduceMean", "ReduceSum", linear=True, homogeneous=True, monotone=True),
    _reduced("Unique", sized_by_data=True),
)
