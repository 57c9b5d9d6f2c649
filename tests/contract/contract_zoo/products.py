"""Weights of MatMul, Gemm and Einsum, wherever they stand and whatever shape they have."""

import numpy as np
import onnx

from contract_zoo.case import below, case, integers_of, model, normal, weight


@case(x=normal(8, 37))
def two_layers_of_odd_sizes() -> onnx.ModelProto:
    return model(
        """net (float[N,37] x) => (float[N,5] y) {
            [up] a = MatMul(x, w) b = Add(a, c) h = Relu(b) [down] d = MatMul(h, v) y = Add(d, e) }""",
        w=weight(37, 66),
        c=weight(66),
        v=weight(66, 5),
        e=weight(5),
    )


@case(x=normal(4, 7, 32))
def weights_of_three_dimensions() -> onnx.ModelProto:
    return model(
        "net (float[4,7,32] x) => (float[4,7,48] y) { [each] y = MatMul(x, w) }", w=weight(4, 32, 48)
    )


@case(x=normal(6, 32))
def experts_chosen_by_a_router() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,32] y) {
            [router] s = MatMul(x, r) k = ArgMax<axis=-1, keepdims=0>(s)
            u = Gather<axis=0>(up, k) d = Gather<axis=0>(down, k)
            a = Unsqueeze(x, one) [up_project] b = MatMul(a, u) h = Relu(b) [down_project] c = MatMul(h, d)
            y = Squeeze(c, one) }""",
        r=weight(32, 4),
        up=weight(4, 32, 64),
        down=weight(4, 64, 32),
        one=integers_of(1),
    )


@case(x=normal(3, 7, 32))
def experts_all_at_once() -> onnx.ModelProto:
    return model(
        """net (float[N,7,32] x) => (float[N,4,7,24] y) {
            a = Unsqueeze(x, one) [experts] b = MatMul(a, w) c = Add(b, bias) y = Relu(c) }""",
        w=weight(4, 32, 24),
        bias=weight(4, 1, 24),
        one=integers_of(1),
    )


@case(x=normal(2, 7, 32))
def einsum_with_a_matrix() -> onnx.ModelProto:
    return model(
        """net (float[N,T,32] x) => (float[N,T,48] y) {
            [e] y = Einsum<equation="bij,jk->bik">(x, w) }""",
        w=weight(32, 48),
    )


@case(x=normal(2, 7, 32))
def einsum_by_heads() -> onnx.ModelProto:
    return model(
        """net (float[N,T,32] x) => (float[N,4,T,16] y) {
            [e] y = Einsum<equation="btd,dhk->bhtk">(x, w) }""",
        w=weight(32, 4, 16),
    )


@case(x=normal(2, 32, 7))
def weight_on_the_left() -> onnx.ModelProto:
    return model(
        """net (float[N,32,7] x) => (float[N,24,7] y) {
            [left] a = MatMul(w, x) b = Relu(a) [second] y = MatMul(v, b) }""",
        w=weight(48, 32),
        v=weight(24, 48),
    )


@case(x=normal(8, 32))
def gemm_scaled() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,24] y) {
            [first] a = Gemm<alpha=0.5, beta=0.25, transB=1>(x, w, b) h = Relu(a)
            [second] y = Gemm<beta=0.5>(h, v, c) }""",
        w=weight(64, 32),
        b=weight(64, gain=4),
        v=weight(64, 24),
        c=weight(24, gain=4),
    )


@case(x=normal(8, 32))
def gemm_with_a_scalar_bias() -> onnx.ModelProto:
    return model(
        "net (float[N,32] x) => (float[N,48] y) { [g] y = Gemm(x, w, b) }",
        w=weight(32, 48),
        b=np.float32(0.7),
    )


@case(x=normal(1, 32))
def gemm_with_a_row_of_bias() -> onnx.ModelProto:
    return model(
        "net (float[1,32] x) => (float[1,48] y) { [g] y = Gemm(x, w, b) }",
        w=weight(32, 48),
        b=weight(1, 48),
    )


@case(x=normal(32, 6))
def gemm_with_turned_input() -> onnx.ModelProto:
    return model(
        "net (float[32,N] x) => (float[N,48] y) { [g] y = Gemm<transA=1>(x, w, b) }",
        w=weight(32, 48),
        b=weight(48),
    )


@case(x=normal(8, 32))
def gemm_and_clip_with_two_bounds() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,16] y) {
            [first] a = Gemm<transB=1>(x, w, b) c = Clip(a, low, high)
            [second] y = Gemm<transB=1>(c, v, d) }""",
        w=weight(64, 32),
        b=weight(64),
        v=weight(16, 64),
        d=weight(16),
        low=np.float32(-1),
        high=np.float32(1),
    )


@case(x=normal(8, 64))
def one_weight_of_two_layers() -> onnx.ModelProto:
    return model(
        """net (float[N,64] x) => (float[N,10] y) {
            [first] a = MatMul(x, w) h = Relu(a) [second] b = MatMul(h, w) i = Relu(b)
            [head] y = MatMul(i, v) }""",
        w=weight(64, 64),
        v=weight(64, 10),
    )


@case(tokens=below(64, 2, 9))
def embedding_tied_to_the_head() -> onnx.ModelProto:
    return model(
        """net (int64[N,T] tokens) => (float[N,T,64] logits) {
            [table] x = Gather(w, tokens) [mix] a = MatMul(x, m) h = Tanh(a)
            [turn] t = Transpose<perm=[1,0]>(w) [head] logits = MatMul(h, t) }""",
        w=weight(64, 32),
        m=weight(32, 32),
    )


@case(tokens=below(64, 6))
def embedding_tied_to_a_gemm() -> onnx.ModelProto:
    return model(
        """net (int64[N] tokens) => (float[N,64] logits) {
            [table] x = Gather(w, tokens) [head] logits = Gemm<transB=1>(x, w, b) }""",
        w=weight(64, 32),
        b=weight(64),
    )


@case(x=normal(8, 48))
def residual_sums_of_three() -> onnx.ModelProto:
    return model(
        """net (float[N,48] x) => (float[N,48] y) {
            [a] a1 = MatMul(x, w1) a2 = Relu(a1) [b] b1 = MatMul(a2, v1) s = Sum(x, b1, bias)
            [c] c1 = MatMul(s, w2) c2 = Relu(c1) [d] d1 = MatMul(c2, v2) y = Sum(s, d1) }""",
        w1=weight(48, 64),
        v1=weight(64, 48),
        w2=weight(48, 64, like="2"),
        v2=weight(64, 48, like="2"),
        bias=weight(48),
    )


@case(x=normal(4, 6, 32))
def batch_fixed_inside() -> onnx.ModelProto:
    return model(
        """net (float[N,6,32] x) => (float[4,10] y) {
            [a] h = MatMul(x, w) r = Relu(h) f = Reshape(r, shape) [b] y = MatMul(f, v) }""",
        w=weight(32, 48),
        v=weight(288, 10),
        shape=integers_of(4, 288),
    )


@case(x=normal(2, 8, 32), mask=below(2, 2, 8, dtype=bool))
def attention_by_hand() -> onnx.ModelProto:
    heads = "Transpose<perm=[0,2,1,3]>"
    return model(
        f"""net (float[N,T,32] x, bool[N,T] mask) => (float[N,T,32] y) {{
            [norm] n = LayerNormalization<axis=-1>(x, gamma, beta)
            [query] q0 = MatMul(n, wq) q1 = Add(q0, bq) q2 = Reshape(q1, split) q = {heads}(q2)
            [key] k0 = MatMul(n, wk) k2 = Reshape(k0, split) k = Transpose<perm=[0,2,3,1]>(k2)
            [value] v0 = MatMul(n, wv) v1 = Add(v0, bv) v2 = Reshape(v1, split) v = {heads}(v2)
            s0 = MatMul(q, k) s1 = Mul(s0, scale) u = Unsqueeze(mask, axes) s2 = Where(u, s1, hidden)
            p = Softmax<axis=-1>(s2) c0 = MatMul(p, v) c1 = {heads}(c0) c = Reshape(c1, join)
            [out] o = MatMul(c, wo) y = Add(o, x) }}""",
        **{f"w{each}": weight(32, 32, like=each) for each in "qkvo"},
        bq=weight(32),
        bv=weight(32, like="v"),
        gamma=np.ones(32, np.float32),
        beta=np.zeros(32, np.float32),
        split=integers_of(0, 0, 4, 8),
        join=integers_of(0, 0, 32),
        axes=integers_of(1, 2),
        scale=np.float32(8**-0.5),
        hidden=np.float32(-1e9),
    )


@case(x=normal(2, 8, 32))
def causal_table_of_minus_infinity() -> onnx.ModelProto:
    return model(
        """net (float[N,8,32] x) => (float[N,8,32] y) {
            [query] q = MatMul(x, wq) [key] k = MatMul(x, wk) t = Transpose<perm=[0,2,1]>(k)
            s = MatMul(q, t) m = Add(s, table) p = Softmax<axis=-1>(m) c = MatMul(p, x)
            [out] y = MatMul(c, wo) }""",
        wq=weight(32, 32, like="q"),
        wk=weight(32, 32, like="k"),
        wo=weight(32, 32, like="o"),
        table=np.triu(np.full((8, 8), -np.inf, np.float32), 1),
    )


@case(x=normal(2, 7, 32))
def three_layers_on_one_input() -> onnx.ModelProto:
    return model(
        """net (float[N,7,32] x) => (float[N,7,32] q, float[N,7,16] k, float[N,7,16] v) {
            a = Add(x, b) [query] q = MatMul(a, wq) [key] k = MatMul(a, wk) [value] v = MatMul(a, wv) }""",
        b=weight(32),
        wq=weight(32, 32),
        wk=weight(32, 16),
        wv=weight(32, 16, like="v"),
    )


@case(x=normal(2, 7, 32))
def keys_repeated_for_grouped_queries() -> onnx.ModelProto:
    return model(
        """net (float[N,7,32] x) => (float[N,7,32] y) {
            [query] q0 = MatMul(x, wq) q1 = Reshape(q0, four) q = Transpose<perm=[0,2,1,3]>(q1)
            [key] k0 = MatMul(x, wk) k1 = Reshape(k0, two) k2 = Transpose<perm=[0,2,3,1]>(k1)
            k3 = Unsqueeze(k2, axis) k4 = Expand(k3, repeat) k = Reshape(k4, merged)
            s = MatMul(q, k) p = Softmax<axis=-1>(s)
            [value] v0 = MatMul(x, wv) v1 = Reshape(v0, four) v = Transpose<perm=[0,2,1,3]>(v1)
            c0 = MatMul(p, v) c1 = Transpose<perm=[0,2,1,3]>(c0) c = Reshape(c1, joined)
            [out] y = MatMul(c, wo) }""",
        wq=weight(32, 32, like="q"),
        wk=weight(32, 16),
        wv=weight(32, 32, like="v"),
        wo=weight(32, 32, like="o"),
        four=integers_of(0, 0, 4, 8),
        two=integers_of(0, 0, 2, 8),
        axis=integers_of(2),
        repeat=integers_of(1, 1, 2, 1, 1),
        merged=integers_of(0, 4, 8, -1),
        joined=integers_of(0, 0, 32),
    )


@case(nodes=normal(30, 16), edge_index=below(30, 2, 80))
def graph_network() -> onnx.ModelProto:
    return model(
        """net (float[nodes,16] nodes, int64[2,edges] edge_index) => (float[nodes,8] y) {
            [first] h = MatMul(nodes, w) source = Gather<axis=0>(edge_index, i0)
            target = Gather<axis=0>(edge_index, i1) message = Gather<axis=0>(h, source)
            shape = Shape(h) zeros = ConstantOfShape(shape) where = Unsqueeze(target, minus)
            width = Shape(message) at = Expand(where, width)
            sums = ScatterElements<axis=0, reduction="add">(zeros, at, message)
            r = Relu(sums) [second] y = MatMul(r, v) }""",
        opset=18,
        w=weight(16, 64),
        v=weight(64, 8),
        i0=np.int64(0),
        i1=np.int64(1),
        minus=integers_of(-1),
    )
