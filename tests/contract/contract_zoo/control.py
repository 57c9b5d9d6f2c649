"""Weights in the bodies of If, Loop and Scan, and in functions."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from contract_zoo.case import case, integers_of, model, normal, one, weight


def _with_weights(body: onnx.GraphProto, **weights: np.ndarray) -> None:
    body.initializer.extend(numpy_helper.from_array(each, name) for name, each in weights.items())


def _bodies(made: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [each.g for node in made.graph.node for each in node.attribute if each.HasField("g")]


@case(c=one(True, bool), x=normal(4, 32))
def weights_in_both_branches() -> onnx.ModelProto:
    made = model(
        """net (bool c, float[N,32] x) => (float[N,16] y) {
            [first] h = MatMul(x, w) [choice] z = If(c) <
                then_branch = yes () => (float[N,48] a) { [inner_yes] a = MatMul(h, wy) },
                else_branch = no () => (float[N,48] b) { [inner_no] b = MatMul(h, wn) }>
            [last] y = MatMul(z, v) }""",
        w=weight(32, 64),
        v=weight(48, 16),
    )
    yes, no = _bodies(made)
    _with_weights(yes, wy=weight(64, 48))
    _with_weights(no, wn=weight(64, 48, like="no"))
    return made


@case(c=one(False, bool), x=normal(4, 32))
def outer_weights_in_branches() -> onnx.ModelProto:
    return model(
        """net (bool c, float[N,32] x) => (float[N,M] y) {
            y = If(c) <
                then_branch = yes () => (float[N,48] a) { [inner_yes] a = MatMul(x, w) },
                else_branch = no () => (float[N,32] b) { [inner_no] d = MatMul(x, w)
                [deep] b = MatMul(d, v) }> }""",
        w=weight(32, 48),
        v=weight(48, 32),
    )


@case(c=one(True, bool), d=one(False, bool), x=normal(4, 32))
def branches_within_branches() -> onnx.ModelProto:
    return model(
        """net (bool c, bool d, float[N,32] x) => (float[N,48] y) {
            y = If(c) <
                then_branch = yes () => (float[N,48] a) {
                    a = If(d) <
                        then_branch = deep_yes () => (float[N,48] e) { [one] e = MatMul(x, w) },
                        else_branch = deep_no () => (float[N,48] f) { g = Neg(x) [two] f = MatMul(g, w) }> },
                else_branch = no () => (float[N,48] b) { h = Relu(x) [three] b = MatMul(h, v) }> }""",
        w=weight(32, 48),
        v=weight(32, 48, like="v"),
    )


@case(x=normal(4, 32))
def weights_in_a_loop() -> onnx.ModelProto:
    made = model(
        """net (float[N,32] x) => (float[N,32] y, float[5,N,32] all) {
            y, all = Loop(count, , x) <body = step (int64 i, bool go, float[N,32] state)
                => (bool go_on, float[N,32] next, float[N,32] seen) {
                    [inner] a = MatMul(state, w) next = Tanh(a) seen = Identity(next)
                    go_on = Identity(go) }> }""",
        count=np.int64(5),
    )
    _with_weights(_bodies(made)[0], w=weight(32, 32))
    return made


@case(n=one(3), x=normal(4, 32))
def loop_as_long_as_the_input_says() -> onnx.ModelProto:
    return model(
        """net (int64 n, float[N,32] x) => (float[N,10] y) {
            z = Loop(n, , x) <body = step (int64 i, bool go, float[N,32] state)
                => (bool go_on, float[N,32] next) {
                    [inner] a = MatMul(state, w) next = Tanh(a) go_on = Identity(go) }>
            [last] y = MatMul(z, v) }""",
        w=weight(32, 32),
        v=weight(32, 10),
    )


@case(x=normal(4, 32))
def weight_carried_through_a_loop() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,32] y) {
            y, used = Loop(count, , x, w) <body = step (int64 i, bool go, float[N,32] state, float[32,32] m)
                => (bool go_on, float[N,32] next, float[32,32] same) {
                    [inner] a = MatMul(state, m) next = Tanh(a) same = Identity(m)
                    go_on = Identity(go) }> }""",
        count=np.int64(3),
        w=weight(32, 32),
    )


@case(x=normal(5, 3, 16))
def weights_in_a_scan() -> onnx.ModelProto:
    made = model(
        """net (float[T,N,16] x) => (float[N,24] last, float[T,N,24] y) {
            z = ConstantOfShape<value = float[1] {0.0}>(start)
            last, y = Scan<num_scan_inputs=1, body = step (float[3,24] h, float[3,16] t)
                => (float[3,24] next, float[3,24] seen) {
                    [input] a = MatMul(t, wi) [state] b = MatMul(h, wh) c = Add(a, b) next = Tanh(c)
                    seen = Identity(next) }>(z, x) }""",
        start=integers_of(3, 24),
        wh=weight(24, 24),
    )
    _with_weights(_bodies(made)[0], wi=weight(16, 24))
    return made


@case(x=normal(4, 32))
def weights_in_constants_of_a_branch() -> onnx.ModelProto:
    made = model(
        """net (float[N,32] x) => (float[N,48] y) {
            s = ReduceSum<keepdims=0>(x) c = Greater(s, zero) y = If(c) <
                then_branch = yes () => (float[N,48] a) { [inner] a = MatMul(x, w) },
                else_branch = no () => (float[N,48] b) { n = Neg(x) b = MatMul(n, v) }> }""",
        zero=np.float32(0),
        v=weight(32, 48),
    )
    constant = helper.make_node(
        "Constant", [], ["w"], value=numpy_helper.from_array(weight(32, 48, like="w"))
    )
    _bodies(made)[0].node.insert(0, constant)
    return made


@case(x=normal(4, 32))
def a_layer_that_is_a_function() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,16] y) {
            [first] a = local.dense<slope=0.1>(x, w, b) [second] y = local.dense<slope=0.5>(a, v, c) }""",
        functions="""<domain: "local", opset_import: ["": 17]>
            dense<slope>(x, w, b) => (y) { p = MatMul(x, w) s = Add(p, b) y = LeakyRelu<alpha:
            float = @slope>(s) }""",
        w=weight(32, 64),
        b=weight(64),
        v=weight(64, 16),
        c=weight(16),
    )


@case(x=normal(4, 32))
def functions_within_functions() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y) { [top] y = local.outer(x, w) }""",
        functions="""<domain: "local", opset_import: ["": 17, "local": 1]>
            outer(x, w) => (y) { n = Neg(x) y = local.inner(n, w) }
            <domain: "local", opset_import: ["": 17]>
            inner(x, w) => (y) { p = MatMul(x, w) y = Relu(p) }""",
        w=weight(32, 48),
    )


@case(c=one(True, bool), x=normal(4, 32))
def a_function_with_a_branch() -> onnx.ModelProto:
    return model(
        """net (bool c, float[N,32] x) => (float[N,48] y) { [top] y = local.maybe(c, x, w) }""",
        functions="""<domain: "local", opset_import: ["": 17]>
            maybe(c, x, w) => (y) { y = If(c) <
                then_branch = yes () => (a) { a = MatMul(x, w) },
                else_branch = no () => (b) { n = Neg(x) b = MatMul(n, w) }> }""",
        w=weight(32, 48),
    )
