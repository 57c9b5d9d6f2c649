"""Convolutional networks, and the shapes of graph between their layers."""

import numpy as np
import onnx

from contract_zoo.case import case, integers_of, model, normal, weight


def _norm(name: str, size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(size)
    return {
        f"{name}_scale": rng.uniform(0.5, 1.5, size).astype(np.float32),
        f"{name}_bias": rng.normal(0, 0.1, size).astype(np.float32),
        f"{name}_mean": rng.normal(0, 0.1, size).astype(np.float32),
        f"{name}_var": rng.uniform(0.5, 1.5, size).astype(np.float32),
    }


def _normed(value: str, name: str) -> str:
    parts = ", ".join(f"{name}_{part}" for part in ("scale", "bias", "mean", "var"))
    return f"BatchNormalization({value}, {parts})"


@case(x=normal(2, 3, 12, 12))
def two_convolutions_and_a_head() -> onnx.ModelProto:
    return model(
        """net (float[N,3,12,12] x) => (float[N,10] y) {
            [first] a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a)
            [second] c = Conv<strides=[2,2], pads=[1,1,1,1]>(r, v) s = Relu(c)
            p = GlobalAveragePool(s) f = Flatten(p) [head] y = Gemm<transB=1>(f, h, d) }""",
        w=weight(16, 3, 3, 3),
        b=weight(16),
        v=weight(24, 16, 3, 3),
        h=weight(10, 24),
        d=weight(10),
    )


@case(x=normal(2, 8, 8, 8))
def clip_and_flatten() -> onnx.ModelProto:
    return model(
        """net (float[N,8,8,8] x) => (float[N,M] y) {
            [c] a = Conv(x, w) k = Clip(a, low, high) y = Reshape(k, shape) }""",
        w=weight(16, 8, 3, 3),
        low=np.float32(-1),
        high=np.float32(1),
        shape=integers_of(0, -1),
    )


@case(x=normal(2, 16, 8, 8))
def split_and_concatenated() -> onnx.ModelProto:
    return model(
        """net (float[N,16,8,8] x) => (float[N,8,8,8] y) {
            [first] a = Conv(x, w, b) r = Relu(a) left, right = Split<axis=1>(r, halves)
            [second] c = Conv<pads=[1,1,1,1]>(right, v) s = Relu(c) d = Add(s, right)
            e = Concat<axis=1>(left, right, d) [third] y = Conv(e, u) }""",
        w=weight(32, 16, 1, 1),
        b=weight(32),
        halves=integers_of(16, 16),
        v=weight(16, 16, 3, 3),
        u=weight(8, 48, 1, 1),
    )


@case(x=normal(2, 16, 8, 8))
def channels_shuffled() -> onnx.ModelProto:
    return model(
        """net (float[N,16,8,8] x) => (float[N,16,8,8] y) {
            [first] a = Conv<group=4>(x, w) r = Relu(a) b = Reshape(r, five)
            c = Transpose<perm=[0,2,1,3,4]>(b) d = Reshape(c, four)
            [second] e = Conv<group=32, pads=[1,1,1,1]>(d, v) [third] y = Conv<group=4>(e, u) }""",
        w=weight(32, 4, 1, 1),
        five=integers_of(0, 4, 8, 8, 8),
        four=integers_of(0, 32, 8, 8),
        v=weight(32, 1, 3, 3),
        u=weight(16, 8, 1, 1),
    )


@case(x=normal(2, 8, 8, 8))
def hard_swish_and_squeeze() -> onnx.ModelProto:
    return model(
        """net (float[N,8,8,8] x) => (float[N,8,8,8] y) {
            [expand] a = Conv(x, w, b) s = HardSwish(a) p = GlobalAveragePool(s)
            [squeeze] q = Conv(p, sq) r = Relu(q) [excite] e = Conv(r, ex) g = HardSigmoid<alpha=0.1666667>(e)
            m = Mul(s, g) [project] j = Conv(m, v) y = Add(j, x) }""",
        w=weight(32, 8, 1, 1),
        b=weight(32),
        sq=weight(8, 32, 1, 1),
        ex=weight(32, 8, 1, 1),
        v=weight(8, 32, 1, 1),
    )


@case(x=normal(2, 8, 8, 8))
def dense_blocks() -> onnx.ModelProto:
    return model(
        f"""net (float[N,8,8,8] x) => (float[N,16,4,4] y) {{
            n1 = {_normed("x", "p")} r1 = Relu(n1) [c1] a = Conv<pads=[1,1,1,1]>(r1, w1)
            j1 = Concat<axis=1>(x, a) n2 = {_normed("j1", "q")} r2 = Relu(n2)
            [c2] b = Conv<pads=[1,1,1,1]>(r2, w2) j2 = Concat<axis=1>(x, a, b)
            n3 = {_normed("j2", "s")} r3 = Relu(n3) [c3] c = Conv(r3, w3)
            y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c) }}""",
        **_norm("p", 8),
        **_norm("q", 20),
        **_norm("s", 32),
        w1=weight(12, 8, 3, 3),
        w2=weight(12, 20, 3, 3),
        w3=weight(16, 32, 1, 1),
    )


@case(x=normal(2, 8, 8, 8))
def normalized_before_and_after() -> onnx.ModelProto:
    return model(
        f"""net (float[N,8,8,8] x) => (float[N,10] y) {{
            n1 = {_normed("x", "p")} [c1] a = Conv(n1, w1, b1) n2 = {_normed("a", "q")} r = Relu(n2)
            [c2] b = ConvTranspose(r, w2) n3 = {_normed("b", "s")}
            g = GlobalAveragePool(n3) f = Flatten(g) [head] h = Gemm(f, v) y = {_normed("h", "t")} }}""",
        **_norm("p", 8),
        **_norm("q", 16),
        **_norm("s", 12),
        **_norm("t", 10),
        w1=weight(16, 8, 3, 3),
        b1=weight(16),
        w2=weight(16, 12, 3, 3),
        v=weight(12, 10),
    )


@case(x=normal(2, 8, 8, 8))
def convolution_and_constants() -> onnx.ModelProto:
    return model(
        """net (float[N,8,8,8] x) => (float[N,16,6,6] y) {
            scaled = Mul(x, gain) [c] a = Conv(scaled, w) b = Mul(a, scale) c = Add(b, shift)
            y = Relu(c) }""",
        gain=np.float32(0.5),
        w=weight(16, 8, 3, 3),
        scale=weight(16, 1, 1),
        shift=weight(16, 1, 1, like="shift"),
    )


@case(x=normal(2, 8, 8, 8))
def one_kernel_of_two_convolutions() -> onnx.ModelProto:
    return model(
        """net (float[N,8,8,8] x) => (float[N,8,8,8] y, float[N,8,8,8] z) {
            [first] y = Conv<pads=[1,1,1,1]>(x, w, b) h = Relu(y)
            [second] z = Conv<pads=[1,1,1,1]>(h, w, b) }""",
        w=weight(8, 8, 3, 3),
        b=weight(8),
    )


@case(x=normal(2, 8, 8, 8))
def upwards_and_downwards() -> onnx.ModelProto:
    return model(
        """net (float[N,8,8,8] x) => (float[N,8,8,8] y) {
            [down] a = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w) r = Relu(a)
            u = Resize<mode="nearest",
                coordinate_transformation_mode="asymmetric", nearest_mode="floor">(r, , s)
            j = Concat<axis=1>(u, x) [merge] b = Conv(j, v) [up] c = ConvTranspose<strides=[2,2]>(r, t)
            y = Add(b, c) }""",
        w=weight(16, 8, 3, 3),
        s=np.float32([1, 1, 2, 2]),
        v=weight(8, 24, 1, 1),
        t=weight(16, 8, 2, 2),
    )


@case(x=normal(2, 8, 8, 8))
def resized_to_a_size() -> onnx.ModelProto:
    return model(
        """net (float[N,8,8,8] x) => (float[N,8,H,W] y) {
            [c] a = Conv(x, w) y = Resize<mode="linear">(a, , , sizes) }""",
        w=weight(8, 8, 3, 3),
        sizes=integers_of(2, 8, 12, 15),
    )


@case(x=normal(2, 16, 8, 8))
def depthwise_and_pointwise() -> onnx.ModelProto:
    return model(
        """net (float[N,16,8,8] x) => (float[N,32,8,8] y) {
            [depth] a = Conv<group=16, pads=[1,1,1,1]>(x, w, b) r = Relu(a) [point] y = Conv(r, v, c) }""",
        w=weight(16, 1, 3, 3),
        b=weight(16),
        v=weight(32, 16, 1, 1),
        c=weight(32),
    )


@case(x=normal(2, 8, 40))
def convolutions_over_time() -> onnx.ModelProto:
    return model(
        """net (float[N,8,T] x) => (float[N,5,U] y) {
            [first] a = Conv<dilations=[2], pads=[4,0]>(x, w, b) g = Sigmoid(a) t = Tanh(a) m = Mul(g, t)
            [second] y = Conv<strides=[2]>(m, v) }""",
        w=weight(16, 8, 3),
        b=weight(16),
        v=weight(5, 16, 1),
    )


@case(x=normal(1, 4, 6, 6, 6))
def convolutions_of_a_volume() -> onnx.ModelProto:
    return model(
        """net (float[N,4,D,H,W] x) => (float[N,6,A,B,C] y) {
            [first] a = Conv<pads=[1,1,1,1,1,1]>(x, w, b) p = MaxPool<kernel_shape=[2,2,2]>(a)
            [second] y = Conv(p, v) }""",
        w=weight(16, 4, 3, 3, 3),
        b=weight(16),
        v=weight(6, 16, 1, 1, 1),
    )


@case(x=normal(2, 8, 8, 8))
def normalized_by_instance_and_group() -> onnx.ModelProto:
    return model(
        """net (float[N,8,8,8] x) => (float[N,16,8,8] y) {
            [c1] a = Conv<pads=[1,1,1,1]>(x, w) n = InstanceNormalization(a, s, b) r = LeakyRelu(n)
            p = Pad<mode="reflect">(r, pads) [c2] c = Conv(p, v)
            y = GroupNormalization<num_groups=4>(c, g, h) }""",
        opset=21,
        ir=10,
        w=weight(16, 8, 3, 3),
        s=np.ones(16, np.float32),
        b=np.zeros(16, np.float32),
        pads=integers_of(0, 0, 1, 1, 0, 0, 1, 1),
        v=weight(16, 16, 3, 3),
        g=np.ones(16, np.float32),
        h=np.zeros(16, np.float32),
    )


@case(x=normal(2, 3, 16, 16))
def patches_and_tokens() -> onnx.ModelProto:
    return model(
        """net (float[N,3,16,16] x) => (float[N,10] y) {
            [patch] a = Conv<strides=[4,4]>(x, w, b) s = Shape<start=0, end=1>(a) t = Concat<axis=0>(s, rest)
            f = Reshape(a, t) k = Transpose<perm=[0,2,1]>(f) e = Expand(cls, one)
            c0 = Shape<start=0, end=1>(x)
            c1 = Concat<axis=0>(c0, tail) c = Expand(e, c1) j = Concat<axis=1>(c, k) q = Add(j, place)
            g = Gather<axis=1>(q, zero) [head] y = Gemm<transB=1>(g, v, d) }""",
        w=weight(32, 3, 4, 4),
        b=weight(32),
        rest=integers_of(32, -1),
        cls=weight(1, 1, 32),
        one=integers_of(1, 1, 1),
        tail=integers_of(1, 32),
        place=weight(1, 17, 32),
        zero=np.int64(0),
        v=weight(10, 32),
        d=weight(10),
    )


@case(x=normal(1, 1, 400))
def overlapping_frames() -> onnx.ModelProto:
    return model(
        """net (float[N,1,400] x) => (float[N,16,T] y) {
            [frames] a = Conv<strides=[10]>(x, basis) s = Mul(a, a) [mel] m = Conv(s, filters)
            c = Clip(m, low) y = Log(c) }""",
        basis=weight(64, 1, 40),
        filters=np.abs(weight(16, 64, 1)),
        low=np.float32(1e-3),
    )
