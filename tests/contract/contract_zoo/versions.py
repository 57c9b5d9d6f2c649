"""Operator sets from 7 to 23, and operators that later sets changed."""

import numpy as np
import onnx
from onnx import helper

from contract_zoo.case import CASES, Case, case, integers_of, model, normal, weight

FORMATS = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9}
"""The version of the file format that came with an operator set."""


def _network(opset: int) -> onnx.ModelProto:
    split = ", split" if opset >= 13 else ""
    halves = "" if opset >= 13 else ", split=[12,12]"
    axes = ", axes" if opset >= 18 else ""
    over = "" if opset >= 18 else "axes=[2,3], "
    made = model(
        f"""net (float[N,3,12,12] x) => (float[N,10] y) {{
            [first] a = Conv<pads=[1,1,1,1]>(x, w, b) n = BatchNormalization(a, s, o, m, d) r = Relu(n)
            p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
            left, right = Split<axis=1{halves}>(p{split}) [second] c = Conv(left, v)
            e = Add(c, right) t = ReduceMean<{over}keepdims=0>(e{axes}) [head] z = Gemm<transB=1>(t, h, i)
            y = Softmax<axis=1>(z) }}""",
        opset=opset,
        ir=FORMATS.get(opset, 10 if opset < 23 else 11),
        w=weight(24, 3, 3, 3),
        b=weight(24),
        s=np.ones(24, np.float32),
        o=np.zeros(24, np.float32),
        m=weight(24),
        d=np.ones(24, np.float32),
        v=weight(12, 12, 1, 1),
        h=weight(10, 12),
        i=weight(10),
        **({"split": integers_of(12, 12)} if opset >= 13 else {}),
        **({"axes": integers_of(2, 3)} if opset >= 18 else {}),
    )
    if made.ir_version < 4:  # every initializer is an input
        for each in made.graph.initializer:
            made.graph.input.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    return made


def _of(opset: int) -> Case:
    return Case(f"operator_set_{opset}", lambda: _network(opset), {"x": normal(2, 3, 12, 12)})


CASES.update({each.name: each for each in map(_of, range(7, 24))})


@case(x=normal(1, 2, 6, 6))
def upsample_of_opset_9() -> onnx.ModelProto:
    return model(
        """net (float[1,2,6,6] x) => (float[1,8,12,12] y) {
            u = Upsample<mode="linear">(x, s) [c] y = Conv<pads=[1,1,1,1]>(u, w) }""",
        opset=9,
        ir=4,
        s=np.float32([1, 1, 2, 2]),
        w=weight(8, 2, 3, 3),
    )


@case(x=normal(1, 2, 6, 6))
def resize_of_opset_10() -> onnx.ModelProto:
    return model(
        """net (float[1,2,6,6] x) => (float[1,8,9,9] y) {
            u = Resize<mode="linear">(x, s) [c] y = Conv<pads=[1,1,1,1]>(u, w) }""",
        opset=10,
        ir=5,
        s=np.float32([1, 1, 1.5, 1.5]),
        w=weight(8, 2, 3, 3),
    )


@case(x=normal(2, 4, 32))
def softmax_of_opset_11() -> onnx.ModelProto:
    return model(
        """net (float[2,4,32] x) => (float[2,4,16] y, float[2,4,16] l, float[2,4,32] h) {
            [m] a = MatMul(x, w) y = Softmax<axis=1>(a) l = LogSoftmax<axis=1>(a) h = Hardmax<axis=1>(x) }""",
        opset=11,
        ir=6,
        w=weight(32, 16),
    )


@case(x=normal(2, 4, 32))
def slope_of_opset_8() -> onnx.ModelProto:
    return model(
        """net (float[2,4,32] x) => (float[2,4,48] y) { [m] a = MatMul(x, w) y = PRelu(a, slope) }""",
        opset=8,
        ir=4,
        w=weight(32, 48),
        slope=np.abs(weight(4, 1)),
    )


@case(x=normal(2, 32))
def clip_and_dropout_of_opset_9() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,16] y) {
            [a] h = Gemm(x, w, b) c = Clip<min=0.0, max=6.0>(h) d = Dropout<ratio=0.5>(c)
            [b] g = Gemm(d, v, e)
            f = Flatten(g) u = Unsqueeze<axes=[0]>(f) s = Squeeze<axes=[0]>(u)
            y = Pad<pads=[0,0,0,0]>(s) }""",
        opset=9,
        ir=4,
        w=weight(32, 64),
        b=weight(64),
        v=weight(64, 16),
        e=weight(16),
    )


@case(x=normal(2, 4, 8))
def group_normalization_of_opset_18() -> onnx.ModelProto:
    return model(
        """net (float[N,4,8] x) => (float[N,16,8] y) {
            [norm] n = GroupNormalization<num_groups=2>(x, s, b) [c] y = Conv(n, w) }""",
        opset=18,
        s=np.float32([1, 2]),
        b=np.float32([0.1, 0.2]),
        w=weight(16, 4, 1),
    )


@case(x=normal(4, 8))
def scatter_of_opset_9() -> onnx.ModelProto:
    return model(
        """net (float[4,8] x) => (float[4,48] y) {
            a = Scatter<axis=0>(x, at, new) [m] y = MatMul(a, w) }""",
        opset=9,
        ir=4,
        at=np.array([[0, 1, 2, 3, 0, 1, 2, 3]]),
        new=weight(1, 8),
        w=weight(8, 48),
    )
