"""Models whose numbers are not float32."""

import ml_dtypes
import numpy as np
import onnx

from contract_zoo.case import below, case, integers_of, model, normal, weight

HALF, DOUBLE = np.float16, np.float64


@case(x=normal(8, 32, dtype=HALF))
def float16_layers() -> onnx.ModelProto:
    return model(
        """net (float16[N,32] x) => (float16[N,16] y) {
            [first] a = MatMul(x, w) b = Add(a, c) h = Relu(b) [second] y = Gemm(h, v, d) }""",
        w=weight(32, 64, dtype=HALF),
        c=weight(64, dtype=HALF),
        v=weight(64, 16, dtype=HALF),
        d=weight(16, dtype=HALF),
    )


@case(x=normal(2, 3, 12, 12, dtype=HALF))
def float16_convolutions() -> onnx.ModelProto:
    return model(
        """net (float16[N,3,12,12] x) => (float16[N,10] y) {
            [first] a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a) [second] c = Conv(r, v) s = Relu(c)
            p = GlobalAveragePool(s) f = Flatten(p) [head] y = Gemm<transB=1>(f, h, d) }""",
        w=weight(16, 3, 3, 3, dtype=HALF),
        b=weight(16, dtype=HALF),
        v=weight(24, 16, 3, 3, dtype=HALF),
        h=weight(10, 24, dtype=HALF),
        d=weight(10, dtype=HALF),
    )


@case(tokens=below(64, 2, 7))
def float16_embedding_and_norm() -> onnx.ModelProto:
    return model(
        """net (int64[N,T] tokens) => (float16[N,T,48] y) {
            [table] e = Gather(t, tokens) [norm] n = LayerNormalization<axis=-1>(e, g, b)
            [head] y = MatMul(n, w) }""",
        t=weight(64, 32, dtype=HALF),
        g=np.ones(32, HALF),
        b=np.zeros(32, HALF),
        w=weight(32, 48, dtype=HALF),
    )


@case(x=normal(8, 32))
def float16_inside_float32() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,16] y) {
            h = Cast<to=10>(x) [first] a = MatMul(h, w) r = Relu(a) [second] b = MatMul(r, v)
            y = Cast<to=1>(b) }""",
        w=weight(32, 64, dtype=HALF),
        v=weight(64, 16, dtype=HALF),
    )


@case(x=normal(5, 3, 16, dtype=HALF))
def float16_around_an_lstm() -> onnx.ModelProto:
    return model(
        """net (float16[T,N,16] x) => (float16[T,1,N,24] y) {
            f = Cast<to=1>(x) [rec] s = LSTM<hidden_size=24>(f, w, r) y = Cast<to=10>(s) }""",
        w=weight(1, 96, 16),
        r=weight(1, 96, 24),
    )


@case(x=normal(8, 32, dtype=DOUBLE))
def float64_layers() -> onnx.ModelProto:
    return model(
        """net (double[N,32] x) => (double[N,16] y) {
            [first] a = MatMul(x, w) b = Add(a, c) h = Relu(b) [second] y = Gemm(h, v, d) }""",
        w=weight(32, 64, dtype=DOUBLE),
        c=weight(64, dtype=DOUBLE),
        v=weight(64, 16, dtype=DOUBLE),
        d=weight(16, dtype=DOUBLE),
    )


@case(x=normal(8, 32))
def float64_inside_float32() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y) {
            d = Cast<to=11>(x) [first] a = MatMul(d, w) y = Cast<to=1>(a) }""",
        w=weight(32, 48, dtype=DOUBLE),
    )


@case(tokens=below(64, 2, 7))
def bfloat16_table() -> onnx.ModelProto:
    return model(
        """net (int64[N,T] tokens) => (float[N,T,48] y) {
            t = Cast<to=1>(t_half) [table] e = Gather(t, tokens) [head] y = MatMul(e, w) }""",
        t_half=weight(64, 32, dtype=ml_dtypes.bfloat16),
        w=weight(32, 48),
    )


@case(image=below(256, 2, 12, 12, 3, dtype=np.uint8))
def image_of_bytes() -> onnx.ModelProto:
    return model(
        """net (uint8[N,12,12,3] image) => (float[N,24] y) {
            f = Cast<to=1>(image) s = Div(f, range) t = Transpose<perm=[0,3,1,2]>(s) [c] a = Conv(t, w, b)
            r = Relu(a) p = GlobalAveragePool(r) q = Flatten(p) [head] y = MatMul(q, v) }""",
        range=np.float32(255),
        w=weight(16, 3, 3, 3),
        b=weight(16),
        v=weight(16, 24),
    )


@case(tokens=below(64, 2, 7, dtype=np.int32), mask=below(2, 2, 7, dtype=bool))
def integers_and_booleans() -> onnx.ModelProto:
    return model(
        """net (int32[N,T] tokens, bool[N,T] mask) => (float[N,48] y, bool[N] any) {
            [table] e = Gather(t, tokens) k = Cast<to=1>(mask) u = Unsqueeze(k, axis) m = Mul(e, u)
            s = ReduceSum<keepdims=0>(m, one) [head] y = MatMul(s, w)
            i = Cast<to=6>(mask) a = ReduceMax<axes=[1], keepdims=0>(i) any = Cast<to=9>(a) }""",
        t=weight(64, 32),
        axis=integers_of(-1),
        one=integers_of(1),
        w=weight(32, 48),
    )


@case(x=normal(8, 32))
def weights_close_to_the_end_of_float16() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y) {
            [first] a = MatMul(x, w) y = Mul(a, small) }""",
        w=weight(32, 48) * np.float32(1e6),
        small=np.float32(1e-6),
    )


@case(x=normal(8, 32))
def fourier_features() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,16] y) {
            [phase] a = MatMul(x, w) s = Sin(a) c = Cos(a) j = Concat<axis=-1>(s, c)
            [head] y = MatMul(j, v) }""",
        w=weight(32, 24),
        v=weight(48, 16),
    )
