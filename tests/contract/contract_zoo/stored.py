"""The ways in which files hold weights."""

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from contract_zoo.case import case, integers_of, model, normal, weight

CHAIN = """net (float[N,32] x) => (float[N,16] y) {
    [first] a = MatMul(x, w) h = Relu(a) [second] y = MatMul(h, v) }"""


def _chain(text: str = CHAIN, **settings: int) -> onnx.ModelProto:
    return model(text, w=weight(32, 64), v=weight(64, 16), **settings)


@case(x=normal(8, 32))
def half_weights_behind_a_cast() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,16] y) {
            w = Cast<to=1>(w_half) [first] a = MatMul(x, w) h = Relu(a)
            v = Cast<to=1>(v_half) [second] y = MatMul(h, v) }""",
        w_half=weight(32, 64, dtype=np.float16),
        v_half=weight(64, 16, dtype=np.float16),
    )


@case(x=normal(2, 3, 8, 8))
def half_kernels_behind_a_cast() -> onnx.ModelProto:
    return model(
        """net (float[N,3,8,8] x) => (float[N,16,6,6] y) {
            w = Cast<to=1>(w_half) b = Cast<to=1>(b_half) [c] y = Conv(x, w, b) }""",
        w_half=weight(16, 3, 3, 3, dtype=np.float16),
        b_half=weight(16, dtype=np.float16),
    )


@case(x=normal(8, 32))
def bfloat16_weights_behind_a_cast() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y) {
            w = Cast<to=1>(w_half) [first] y = MatMul(x, w) }""",
        w_half=weight(32, 48, dtype=ml_dtypes.bfloat16),
    )


@case(x=normal(8, 32))
def int8_weights_behind_cast_and_mul() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y) {
            c = Cast<to=1>(q) w = Mul(c, scale) [first] y = MatMul(x, w) }""",
        q=np.random.default_rng(0).integers(-127, 128, (32, 48)).astype(np.int8),
        scale=np.full((1, 48), 0.003, np.float32),
    )


@case(x=normal(8, 32))
def int8_weights_behind_a_dequantizer() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y) {
            w = DequantizeLinear<axis=1>(q, scale, zero) [first] y = MatMul(x, w) }""",
        q=np.random.default_rng(0).integers(-127, 128, (32, 48)).astype(np.int8),
        scale=np.full(48, 0.003, np.float32),
        zero=np.zeros(48, np.int8),
    )


@case(x=normal(8, 32))
def weights_of_four_bits() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    return model(
        """net (float[N,32] x) => (float[N,48] y) {
            a = Concat<axis=1>(x, x)
            [packed] y = com.microsoft.MatMulNBits<K=64, N=48, bits=4, block_size=32>(a, q, scale) }""",
        q=rng.integers(0, 256, (48, 2, 16)).astype(np.uint8),
        scale=np.full((48, 2), 0.02, np.float32),
    )


@case(x=normal(2, 3, 8, 8))
def quantized_already() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    return model(
        """net (float[N,3,8,8] x) => (float[N,16,6,6] y) {
            xq = QuantizeLinear(x, xs, xz) xd = DequantizeLinear(xq, xs, xz)
            wd = DequantizeLinear<axis=0>(wq, ws, wz) bd = DequantizeLinear<axis=0>(bq, bs)
            [c] a = Conv(xd, wd, bd) aq = QuantizeLinear(a, as, az) y = DequantizeLinear(aq, as, az) }""",
        xs=np.float32(0.03),
        xz=np.uint8(128),
        wq=rng.integers(-127, 128, (16, 3, 3, 3)).astype(np.int8),
        ws=np.full(16, 0.002, np.float32),
        wz=np.zeros(16, np.int8),
        bq=rng.integers(-1000, 1000, 16).astype(np.int32),
        bs=np.full(16, 0.03 * 0.002, np.float32),
        **{"as": np.float32(0.03), "az": np.uint8(128)},
    )


@case(x=normal(8, 32))
def weights_in_constant_nodes() -> onnx.ModelProto:
    made = model(CHAIN)
    for name, array in (("v", weight(64, 16)), ("w", weight(32, 64))):
        made.graph.node.insert(
            0, helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        )
    return made


@case(x=normal(8, 32))
def bias_in_a_constant_of_floats() -> onnx.ModelProto:
    made = model(
        "net (float[N,32] x) => (float[N,48] y) { [first] a = MatMul(x, w) y = Add(a, b) }", w=weight(32, 48)
    )
    bias = helper.make_node("Constant", [], ["b"], value_floats=weight(48).tolist())
    made.graph.node.insert(0, bias)
    return made


@case(x=normal(8, 32))
def weights_turned_by_nodes() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,16] y) {
            t = Transpose<perm=[1,0]>(w) [first] a = MatMul(x, t) h = Relu(a)
            u = Transpose(v) [second] y = MatMul(h, u) }""",
        w=weight(64, 32),
        v=weight(16, 64),
    )


@case(x=normal(8, 32))
def weights_joined_and_cut_by_nodes() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y, float[N,24] z) {
            w = Concat<axis=1>(left, right) [joined] y = MatMul(x, w)
            v = Slice(all, from, to, axes) [cut] z = MatMul(x, v) }""",
        left=weight(32, 24),
        right=weight(32, 24, like="right"),
        all=weight(32, 72),
        **{"from": integers_of(24), "to": integers_of(48)},
        axes=integers_of(1),
    )


@case(x=normal(8, 32))
def weights_that_may_be_fed() -> onnx.ModelProto:
    made = _chain()
    for each in made.graph.initializer:
        made.graph.input.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    return made


@case(x=normal(8, 32), w=normal(32, 48))
def weights_that_must_be_fed() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x, float[32,48] w) => (float[N,16] y) {
            [fed] a = MatMul(x, w) [own] y = MatMul(a, v) }""",
        v=weight(48, 16),
    )


@case(x=normal(8, 32))
def a_default_that_may_be_fed() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x, float[1] temperature) => (float[N,48] y) {
            [first] a = MatMul(x, w) y = Div(a, temperature) }""",
        w=weight(32, 48),
        temperature=np.float32([1.5]),
    )


@case(external=True, x=normal(8, 32))
def weights_beside_the_file() -> onnx.ModelProto:
    return _chain()


@case(external=True, x=normal(8, 32))
def constants_beside_the_file() -> onnx.ModelProto:
    return weights_in_constant_nodes()


@case(x=normal(8, 32))
def weights_as_lists_of_floats() -> onnx.ModelProto:
    made = _chain()
    for each in made.graph.initializer:
        array = numpy_helper.to_array(each)
        each.CopyFrom(
            helper.make_tensor(each.name, each.data_type, array.shape, array.ravel().tolist(), raw=False)
        )
    return made


def _sparse(name: str, *sizes: int) -> onnx.SparseTensorProto:
    array = weight(*sizes) * (np.random.default_rng(0).random(sizes) < 0.1)
    where = np.flatnonzero(array)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(array.ravel()[where], name), numpy_helper.from_array(where), sizes
    )


@case(x=normal(8, 32))
def a_sparse_initializer() -> onnx.ModelProto:
    made = model(CHAIN, v=weight(64, 16))
    made.graph.sparse_initializer.append(_sparse("w", 32, 64))
    return made


@case(x=normal(8, 32))
def a_sparse_constant() -> onnx.ModelProto:
    made = model(CHAIN, v=weight(64, 16))
    constant = helper.make_node("Constant", [], ["w"], sparse_value=_sparse("", 32, 64))
    made.graph.node.insert(0, constant)
    return made


@case(x=normal(8, 32))
def a_weight_that_is_an_output() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y, float[32,48] w) {
            [first] y = MatMul(x, w) }""",
        w=weight(32, 48),
    )


@case(x=normal(8, 32))
def a_weight_that_nothing_reads() -> onnx.ModelProto:
    return model(
        "net (float[N,32] x) => (float[N,48] y) { [first] y = MatMul(x, w) }",
        w=weight(32, 48),
        unused=weight(64, 64),
    )


@case(x=normal(8, 32))
def one_row_of_zeros_and_one_huge_weight() -> onnx.ModelProto:
    array = weight(32, 64)
    array[:, 3] = 0
    array[5, 7] = 50
    return model("net (float[N,32] x) => (float[N,64] y) { [first] y = MatMul(x, w) }", w=array)


@case(x=normal(8, 32))
def a_weight_of_zeros() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y) {
            [first] a = MatMul(x, w) [second] b = MatMul(x, v) y = Add(a, b) }""",
        w=np.zeros((32, 48), np.float32),
        v=weight(32, 48),
    )
