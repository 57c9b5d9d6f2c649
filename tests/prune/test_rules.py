"""Every operator rule: what is removed through an operator equals what is zeroed around it, or is pinned."""

import numpy as np
import onnx_ir as ir
import pytest

from compress.model import Model
from compress.prune.coupling import Coupling
from compress.prune.rules import RULES

FLOATS = (
    "Abs Ceil Celu Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Mish Neg Relu Round "
)
FLOATS += "Selu Shrink Sigmoid Sign Sin Softplus Softsign Tan Tanh ThresholdedRelu Atan Asinh Sinh Dropout"
BOUNDED = "Sqrt Acos Asin Atanh Log Reciprocal Acosh Cosh"
PAIRS = "Add Sub Mul Pow Max Min Mean Sum"
COMPARISONS = "Greater GreaterOrEqual Less LessOrEqual"
BITS = "And Or Xor"
INTEGERS = "BitwiseAnd BitwiseOr BitwiseXor"
REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

TOKENS = {
    **{op: f"k = {op}(h)" for op in FLOATS.split()},
    **{op: f"u = Sigmoid(h)  k = {op}(u)" for op in BOUNDED.split()},
    **{op: f"u = Sigmoid(h)  v = {op}(u, m)  k = Add(v, h)" for op in PAIRS.split()},
    **{op: f"u = {op}(h, m)  v = Cast<to=1>(u)  k = Mul(v, h)" for op in COMPARISONS.split()},
    **{op: f"u = Less(h, m)  w = Less(m, h)  v = {op}(u, w)  k = Where(v, h, m)" for op in BITS.split()},
    **{
        op: f"u = Cast<to=7>(h)  w = Cast<to=7>(m)  v = {op}(u, w)  k = CastLike(v, h)"
        for op in INTEGERS.split()
    },
    **{f"Reduce{op}": f"u = Reduce{op}<keepdims=1>(h, one)  k = Mul(h, u)" for op in REDUCTIONS.split()},
    "BitwiseNot": "u = Cast<to=7>(h)  v = BitwiseNot(u)  k = Cast<to=1>(v)",
    "BitShift": "r = Abs(h)  s = Abs(m)  u = Cast<to=12>(r)  w = Cast<to=12>(s)  "
    'v = BitShift<direction="LEFT">(u, w)  k = CastLike(v, h)',
    "IsInf": "u = IsInf(h)  v = IsNaN(h)  w = Or(u, v)  k = Where(w, m, h)",
    "Not": "u = Less(h, m)  v = Not(u)  k = Where(v, h, m)",
    "Div": "u = Sigmoid(h)  v = Div(m, u)  k = Add(v, h)",
    "Equal": "u = Equal(h, m)  v = Not(u)  w = Cast<to=1>(v)  k = Mul(w, h)",
    "Mod": "k = Mod<fmod=1>(h, high)",
    "PRelu": "k = PRelu(h, m)",
    "Clip": "k = Clip(h, , high)",
    "Softmax": "k = Softmax<axis=1>(h)",
    "LogSoftmax": "k = LogSoftmax<axis=1>(h)",
    "Hardmax": "k = Hardmax<axis=1>(h)",
    "CumSum": "k = CumSum(h, place)",
    "LpNormalization": "k = LpNormalization<axis=1>(h)",
    "Gemm": "u = Reshape(h, flat)  v = Gemm<transB=1>(u, sq, m)  w = Relu(v)  k = Reshape(w, back)",
    "Einsum": 'k = Einsum<equation="ntc,dc->ntd">(h, sq)',
    "Reshape": "u = Reshape(h, heads)  v = Relu(u)  k = Reshape(v, back)",
    "Flatten": "u = Flatten<axis=2>(h)  v = Sin(u)  k = Reshape(v, back)",
    "Transpose": "u = Transpose<perm=[2,0,1]>(h)  k = Transpose<perm=[1,2,0]>(u)",
    "Squeeze": "u = Unsqueeze(h, one)  v = Exp(u)  k = Squeeze(v, one)",
    "Expand": "s = Shape(h)  u = Expand(m, s)  k = Mul(h, u)",
    "ConstantOfShape": "s = Shape(h)  u = ConstantOfShape(s)  k = Add(h, u)",
    "Range": "s = Shape<start=1, end=2>(h)  n = Squeeze(s)  u = Range(zero, n, step)  f = Cast<to=1>(u)  "
    "g = Unsqueeze(f, one)  k = Mul(h, g)",
    "Tile": "k = Tile(h, twice)",
    "Concat": "u = Tanh(h)  v = Concat<axis=2>(h, u)  s, t = Split<axis=2, num_outputs=2>(v)  k = Add(s, t)",
    "Slice": "u = Slice(h, from, to, two)  k = Concat<axis=2>(u, h)",
    "Gather": "k = Gather<axis=1>(h, some)",
    "Trilu": "u = Transpose<perm=[2,0,1]>(h)  v = Trilu(u)  k = Transpose<perm=[1,2,0]>(v)",
    "LSTM": "u = Transpose<perm=[1,0,2]>(h)  v = LSTM<hidden_size=6>(u, wl, rl)  w = Squeeze(v, one)  "
    "k = Transpose<perm=[1,0,2]>(w)",
    "GRU": "u = Transpose<perm=[1,0,2]>(h)  v = GRU<hidden_size=6>(u, wg, rg)  w = Squeeze(v, one)  "
    "k = Transpose<perm=[1,0,2]>(w)",
    "RNN": "u = Transpose<perm=[1,0,2]>(h)  v = RNN<hidden_size=6>(u, wr, rr)  w = Squeeze(v, one)  "
    "k = Transpose<perm=[1,0,2]>(w)",
}
"""How `k` is computed from `h` float[N,6,8], whose last dimension a MatMul makes and another sums over."""
IMAGES = {
    "Conv": "k = Conv<pads=[1,1,1,1]>(h, kernel)",
    "ConvTranspose": "k = ConvTranspose<strides=[2,2]>(h, kernel)",
    "BatchNormalization": "k = BatchNormalization(h, p, m, m, p)",
    "InstanceNormalization": "k = InstanceNormalization(h, p, m)",
    **{op: f"k = {op}<kernel_shape=[2,2]>(h)" for op in ("AveragePool", "MaxPool", "LpPool")},
    **{op: f"k = {op}(h)" for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")},
    "Pad": "k = Pad(h, pads)",
    "Resize": "k = Resize(h, , scales)",
    "DepthToSpace": "k = DepthToSpace<blocksize=2>(h)",
    "SpaceToDepth": "k = SpaceToDepth<blocksize=2>(h)",
}
"""The same from `h` float[N,8,6,6], between two convolutions."""
ELSEWHERE = {
    *("MatMul", "Unsqueeze", "Shape", "Cast", "CastLike", "Where", "IsNaN", "Split"),  # in the bodies above
    *("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "GroupNormalization"),
    *("ArgMax", "ArgMin", "Upsample", "Swish"),
}
"""Rules that other bodies use, or that change statistics, pin, or belong to other opsets."""
RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


CONSTANTS = {
    "one": np.array([1]),
    "two": np.array([2]),
    "place": np.array(1),
    "high": np.float32(0.5),
    "flat": np.array([-1, 8]),
    "back": np.array([-1, 6, 8]),
    "heads": np.array([0, 0, 4, 2]),
    "zero": np.array(0),
    "step": np.array(1),
    "twice": np.array([1, 2, 1]),
    "from": np.array([2]),
    "to": np.array([5]),
    "some": np.array([0, 3, 5]),
    "m": normal(8),
    "p": np.abs(normal(8)) + 0.5,
    "sq": normal(8, 8),
    "kernel": normal(8, 8, 3, 3),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "wl": normal(1, 24, 8),
    "rl": normal(1, 24, 6),
    "wg": normal(1, 18, 8),
    "rg": normal(1, 18, 6),
    "wr": normal(1, 6, 8),
    "rr": normal(1, 6, 6),
}


@pytest.fixture
def make(build):
    """A function from a body to a model in which it stands between two layers."""

    def made(body, frame):
        inputs, outputs, first, last, weights = frame
        words = set(body.translate(str.maketrans("(),", "   ")).split())
        constants = {name: array for name, array in CONSTANTS.items() if name in words}
        text = f"net (float[{inputs}] x) => (float[{outputs}] y) {{ {first}  {body}  {last} }}"
        return Model(ir.from_proto(build(text, **constants, **weights)))

    return made


SEQUENCE = ("N,6,5", "N,L,4", "h = MatMul(x, first)", "y = MatMul(k, last)")
IMAGE = ("N,3,6,6", "N,4,H,W", "h = Conv(x, first)", "y = Conv(k, last)")


@pytest.mark.parametrize("name", TOKENS)
def test_through_sequences(name, make, zeroed):
    width = {"LSTM": 6, "GRU": 6, "RNN": 6, "Slice": 11}.get(name, 8)
    weights = {"first": normal(5, 8), "last": normal(width, 4)}
    check(make(TOKENS[name], (*SEQUENCE, weights)), normal(2, 6, 5), name, zeroed)


@pytest.mark.parametrize("name", IMAGES)
def test_through_images(name, make, zeroed):
    width = {"DepthToSpace": 2, "SpaceToDepth": 32}.get(name, 8)
    weights = {"first": normal(8, 3, 1, 1), "last": normal(4, width, 1, 1)}
    check(make(IMAGES[name], (*IMAGE, weights)), normal(2, 3, 6, 6), name, zeroed)


def check(model, x, name, zeroed):
    assert name in {node.op_type for node in model.graph}
    smaller = model.copy()
    coupling = Coupling(smaller.ir, {"x": x.shape})
    free = [group for group in coupling.groups if not group.obstacle and group.kind != "embedding"]
    assert free, [group.obstacle for group in coupling.groups]
    keep = {group: np.arange(group.size) % 3 > 0 for group in free}
    expected = zeroed(model, keep)
    coupling.removal(keep).apply(smaller.graph)
    assert smaller.weight_bytes < model.weight_bytes
    (got,), (want,), (before,) = (each.run({"x": x}) for each in (smaller, expected, model))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert not np.allclose(before, want, rtol=1e-3)


def test_every_rule_is_tried():
    assert {*TOKENS, *IMAGES, *ELSEWHERE} == set(RULES)
