"""What surrounds the graph: names, shapes, notes, inputs and outputs."""

import numpy as np
import onnx
from onnx import helper

from contract_zoo.case import case, model, normal, one, weight

CHAIN = """net (float[N,32] x) => (float[N,16] y) {
    [first] a = MatMul(x, w) [middle] h = Relu(a) [second] y = MatMul(h, v) }"""


def _chain(text: str = CHAIN) -> onnx.ModelProto:
    return model(text, w=weight(32, 64), v=weight(64, 16))


@case(x=normal(8, 32), scale=one(1.5, np.float32), power=one(2, np.int64))
def scalar_inputs() -> onnx.ModelProto:
    return _chain("""net (float[N,32] x, float scale, int64 power) => (float[N,16] y, float total) {
        s = Mul(x, scale) [first] a = MatMul(s, w) h = Relu(a) [second] b = MatMul(h, v)
        y = Pow(b, power) total = ReduceSum<keepdims=0>(y) }""")


@case(x=normal(8, 32))
def sizes_of_minus_one() -> onnx.ModelProto:
    made = _chain()
    for each in (*made.graph.input, *made.graph.output):
        each.type.tensor_type.shape.dim[0].dim_value = -1
    return made


@case(x=normal(8, 32))
def sizes_without_a_name() -> onnx.ModelProto:
    return _chain(CHAIN.replace("[N,", "[?,"))


@case(x=normal(8, 32))
def outputs_without_shape() -> onnx.ModelProto:
    return _chain(CHAIN.replace("float[N,16] y", "float[] y"))


@case(x=normal(8, 32))
def inputs_without_shape() -> onnx.ModelProto:
    return _chain(CHAIN.replace("float[N,32] x", "float[] x"))


@case(x=normal(8, 32), c=one(True, bool))
def nodes_of_the_same_name() -> onnx.ModelProto:
    return _chain("""net (float[N,32] x, bool c) => (float[N,16] y) {
        [first] a = MatMul(x, w) h = If(c) <
            then_branch = yes () => (float[N,64] r) { [first] r = Relu(a) },
            else_branch = no () => (float[N,64] r) { [first] r = Tanh(a) }>
        [second] y = MatMul(h, v) }""")


@case(x=normal(8, 32))
def nodes_without_names() -> onnx.ModelProto:
    return _chain(CHAIN.replace("[first]", "").replace("[middle]", "").replace("[second]", ""))


@case(x=normal(8, 32))
def nodes_out_of_order() -> onnx.ModelProto:
    made = _chain()
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


@case(x=normal(8, 32))
def graph_without_a_name() -> onnx.ModelProto:
    made = _chain()
    made.graph.ClearField("name")
    return made


@case(**{"serving_default_x:0": normal(8, 32)})
def names_with_signs() -> onnx.ModelProto:
    made = _chain()
    renamed = {
        "a": "onnx::MatMul_12",
        "h": "/model/act/Relu_output_0",
        "w": "module.layer:0.weight",
        "v": "größe %s {x}",
        "x": "serving_default_x:0",
        "y": "StatefulPartitionedCall:0",
    }
    for node in made.graph.node:
        node.input[:] = [renamed[each] for each in node.input]
        node.output[:] = [renamed[each] for each in node.output]
        node.name = f"/model/{node.name}[0]"
    for each in (*made.graph.input, *made.graph.output, *made.graph.initializer):
        each.name = renamed[each.name]
    return made


@case(x=normal(8, 32))
def an_output_joined_by_identity() -> onnx.ModelProto:
    return _chain("""net (float[N,32] x) => (float[N,16] y, float[N,16] again, float[N,64] h) {
        [first] a = MatMul(x, w) r = Relu(a) h = Identity(r) [second] b = MatMul(r, v)
        y = Identity(b) again = Identity(b) }""")


@case(x=normal(8, 32))
def an_input_passed_on() -> onnx.ModelProto:
    return _chain("""net (float[N,32] x) => (float[N,16] y, float[N,32] x) {
        [first] a = MatMul(x, w) h = Relu(a) [second] y = MatMul(h, v) }""")


@case(x=normal(8, 32))
def an_input_copied_out() -> onnx.ModelProto:
    return _chain("""net (float[N,32] x) => (float[N,16] y, float[N,32] copy) {
        [first] a = MatMul(x, w) h = Relu(a) [second] y = MatMul(h, v) copy = Identity(x) }""")


@case(x=normal(8, 32), unused=normal(3))
def an_input_that_nothing_reads() -> onnx.ModelProto:
    return _chain("""net (float[N,32] x, float[3] unused) => (float[N,16] y) {
        [first] a = MatMul(x, w) h = Relu(a) [second] y = MatMul(h, v) }""")


@case(x=normal(8, 32))
def every_inner_value_an_output() -> onnx.ModelProto:
    return _chain("""net (float[N,32] x) => (float[N,64] a, float[N,64] h, float[N,16] y) {
        [first] a = MatMul(x, w) h = Relu(a) [second] y = MatMul(h, v) }""")


@case(x=normal(8, 32))
def no_weights_at_all() -> onnx.ModelProto:
    return model("net (float[N,32] x) => (float[N,32] y) { [soft] y = Softmax(x) }")


@case(x=normal(8, 32))
def no_nodes_at_all() -> onnx.ModelProto:
    return model("net (float[N,32] x) => (float[N,32] x) { }")


@case()
def no_inputs_at_all() -> onnx.ModelProto:
    return model(
        "net () => (float[32,16] y) { [first] y = MatMul(w, v) }", w=weight(32, 64), v=weight(64, 16)
    )


@case(x=normal(8, 32))
def an_output_that_is_constant() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y, float[3] table, float[N,48] zeros) {
            [first] y = MatMul(x, w) table = Identity(t) zeros = Mul(y, zero) }""",
        w=weight(32, 48),
        t=np.float32([1, 2, 3]),
        zero=np.float32(0),
    )


@case(x=normal(8, 32))
def notes_everywhere() -> onnx.ModelProto:
    made = _chain()
    made.producer_name, made.producer_version, made.domain = "someone", "1.2", "org.example"
    made.model_version, made.doc_string, made.graph.doc_string = 7, "A model.", "A graph."
    helper.set_model_props(made, {"classes": "cat,dog", "author": "someone"})
    for node in made.graph.node:
        node.doc_string = f"What {node.name} does."
    return onnx.shape_inference.infer_shapes(made)


@case(x=normal(8, 32))
def value_info_with_symbols() -> onnx.ModelProto:
    made = _chain()
    made.graph.value_info.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 64]) for name in ("a", "h")
    )
    return made


@case(x=normal(8, 32))
def domains_that_nothing_uses() -> onnx.ModelProto:
    made = _chain()
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    made.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    return made


@case(x=normal(8, 32))
def a_domain_that_is_not_imported() -> onnx.ModelProto:
    made = _chain("""net (float[N,32] x) => (float[N,16] y) {
        [first] a = MatMul(x, w) h = com.microsoft.FastGelu(a) [second] y = MatMul(h, v) }""")
    del made.opset_import[1]
    return made
