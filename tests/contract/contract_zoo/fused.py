"""Operators of ONNX Runtime's own domain, and ONNX's large ones."""

import numpy as np
import onnx

from contract_zoo.case import below, case, model, normal, weight


@case(x=normal(2, 7, 32))
def microsoft_attention() -> onnx.ModelProto:
    return model(
        """net (float[N,7,32] x) => (float[N,7,16] y) {
            [att] a = com.microsoft.Attention<num_heads=4>(x, w, b) [out] y = MatMul(a, v) }""",
        w=weight(32, 96),
        b=weight(96),
        v=weight(32, 16),
    )


@case(x=normal(2, 7, 32))
def microsoft_quantized_attention() -> onnx.ModelProto:
    return model(
        """net (float[N,7,32] x) => (float[N,7,48] y) {
            xq = QuantizeLinear(x, xs, xz)
            [att] a = com.microsoft.QAttention<num_heads=4>(xq, wq, b, xs, ws, , xz, wz)
            [out] y = MatMul(a, v) }""",
        xs=np.float32(0.03),
        xz=np.uint8(128),
        wq=np.random.default_rng(0).integers(-127, 128, (32, 96)).astype(np.int8),
        b=weight(96),
        ws=np.float32(0.003),
        wz=np.int8(0),
        v=weight(32, 48),
    )


@case(x=normal(2, 7, 32))
def microsoft_multi_head_attention() -> onnx.ModelProto:
    return model(
        """net (float[N,7,32] x) => (float[N,7,32] y) {
            [query] q = MatMul(x, wq) [key] k = MatMul(x, wk) [value] v = MatMul(x, wv)
            [att] a = com.microsoft.MultiHeadAttention<num_heads=4>(q, k, v, b) [out] y = MatMul(a, wo) }""",
        b=weight(96),
        **{f"w{each}": weight(32, 32, like=each) for each in "qkvo"},
    )


@case(x=normal(2, 7, 32))
def microsoft_fused_matmul() -> onnx.ModelProto:
    return model(
        """net (float[N,7,32] x) => (float[N,7,16] y) {
            [first] a = com.microsoft.FusedMatMul<transB=1, alpha=0.5>(x, w) h = Relu(a)
            [second] y = com.microsoft.FusedMatMul(h, v) }""",
        w=weight(64, 32),
        v=weight(64, 16),
    )


@case(x=normal(2, 32))
def microsoft_fused_gemm() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y) {
            [first] y = com.microsoft.FusedGemm<activation="Relu", transB=1>(x, w, b) }""",
        w=weight(48, 32),
        b=weight(48),
    )


@case(x=normal(2, 3, 8, 8))
def microsoft_fused_convolution() -> onnx.ModelProto:
    return model(
        """net (float[N,3,8,8] x) => (float[N,8,4,4] y) {
            [first] a = com.microsoft.FusedConv<activation="Relu", kernel_shape=[3,3]>(x, w, b)
            [second] y = Conv(a, v) }""",
        w=weight(16, 3, 3, 3),
        b=weight(16),
        v=weight(8, 16, 3, 3),
    )


@case(ids=below(50, 2, 7, dtype=np.int32), kinds=below(2, 2, 7, dtype=np.int32))
def microsoft_embeddings() -> onnx.ModelProto:
    return model(
        """net (int32[N,7] ids, int32[N,7] kinds) => (float[N,7,16] y) {
            [emb] e,
            mask = com.microsoft.EmbedLayerNormalization<epsilon=1e-5>(ids, kinds, words, places, types, g, b)
            [out] y = MatMul(e, v) }""",
        words=weight(50, 32, gain=7),
        places=weight(16, 32, gain=4),
        types=weight(2, 32),
        g=np.ones(32, np.float32),
        b=np.zeros(32, np.float32),
        v=weight(32, 16),
    )


@case(x=normal(2, 7, 32))
def microsoft_normalization_with_skip() -> onnx.ModelProto:
    return model(
        """net (float[N,7,32] x) => (float[N,7,32] y) {
            [up] a = MatMul(x, w) g = com.microsoft.BiasGelu(a, c) [down] d = MatMul(g, v)
            [skip] y = com.microsoft.SkipLayerNormalization<epsilon=1e-5>(d, x, gamma, beta, bias) }""",
        w=weight(32, 64),
        c=weight(64),
        v=weight(64, 32),
        gamma=np.ones(32, np.float32),
        beta=np.zeros(32, np.float32),
        bias=weight(32),
    )


@case(x=normal(2, 7, 32))
def microsoft_dynamic_integers() -> onnx.ModelProto:
    return model(
        """net (float[N,7,32] x) => (float[N,7,48] y) {
            [first] y = com.microsoft.DynamicQuantizeMatMul(x, wq, ws, wz, b) }""",
        wq=np.random.default_rng(0).integers(-127, 128, (32, 48)).astype(np.int8),
        ws=np.float32(0.003),
        wz=np.int8(0),
        b=weight(48),
    )


@case(x=normal(2, 7, 32))
def microsoft_experts_of_four_bits() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    return model(
        """net (float[N,7,32] x) => (float[N,7,32] y) {
            f = Reshape(x, rows) [router] s = MatMul(f, r)
            [moe] m = com.microsoft.QMoE<k=2, expert_weight_bits=4, activation_type="relu">(
                f, s, up, up_scale, , down, down_scale)
            shape = Shape(x) y = Reshape(m, shape) }""",
        rows=np.array([-1, 32]),
        r=weight(32, 4),
        up=rng.integers(0, 256, (4, 64, 16)).astype(np.uint8),
        up_scale=np.full((4, 64), 0.03, np.float32),
        down=rng.integers(0, 256, (4, 32, 32)).astype(np.uint8),
        down_scale=np.full((4, 32), 0.02, np.float32),
    )


@case(x=normal(2, 7, 32))
def attention_of_opset_23() -> onnx.ModelProto:
    return model(
        """net (float[N,7,32] x) => (float[N,7,32] y) {
            [norm] n = RMSNormalization<axis=-1>(x, gamma)
            [query] q = MatMul(n, wq) [key] k = MatMul(n, wk) [value] v = MatMul(n, wv)
            [att] a = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1>(q, k, v)
            [out] y = MatMul(a, wo) }""",
        opset=23,
        ir=11,
        gamma=np.ones(32, np.float32),
        wq=weight(32, 32, like="q"),
        wk=weight(32, 16),
        wv=weight(32, 16, like="v"),
        wo=weight(32, 32, like="o"),
    )
