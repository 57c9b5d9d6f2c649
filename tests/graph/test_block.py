"""A graph computed in parts gives what it gives at once, with the weights that nodes have when they are reached."""

import numpy as np
import onnx_ir as ir
import pytest

import compress
from compress.graph.block import Walk
from compress.graph.capture import activations

# ruff: noqa: E501  (a graph a line)
GRAPHS = {
    "chain": "g (float[N,8] x) => (float[N,8] y) { [a] h = MatMul(x, w) r = Relu(h) [b] k = MatMul(r, w) [c] y = Add(k, x) }",
    "one value, far readers": "g (float[N,8] x) => (float[N,8] y) { s = Sigmoid(x) [a] h = MatMul(s, w) [b] k = MatMul(h, w) t = Add(k, s) [c] y = MatMul(t, w) }",
    "shapes and constants": "g (float[N,8] x) => (float[N,4,2] y) { [a] h = MatMul(x, w) n = Shape<end=1>(x) s = Concat<axis=0>(n, d) t = Transpose<perm=[1,0]>(w) [b] k = MatMul(h, t) [c] y = Reshape(k, s) }",
    "a branch reads from outside": """g (float[N,8] x) => (float[N,8] y) { [a] h = MatMul(x, w) m = ReduceMax<keepdims=0>(h) z = Greater(m, o)
        [b] k = If(z)<then_branch = t () => (float[N,8] p) { p = Neg(h) }, else_branch = e () => (float[N,8] q) { q = Add(h, x) }> [c] y = MatMul(k, w) }""",
}


@pytest.fixture(params=GRAPHS)
def model(request, build, normal):
    constants = {"w": normal(8, 8), "d": np.array([4, 2]), "o": np.float32(2)}
    used = {name: array for name, array in constants.items() if f"{name})" in GRAPHS[request.param]}
    return compress.load(
        build(GRAPHS[request.param], **used), calibration=[normal(rows, 8) for rows in (3, 5)]
    )


def test_every_value_is_that_of_the_whole_graph(model):
    made = {node.name: node.outputs[0].name for node in model.graph}
    expected = list(activations(model.ir, [made[name] for name in "abc"], model.batches()))
    with Walk(model.ir, model.batches()) as walk:
        for stop in ("a", "b", "b", "c"):
            walk.advance(stop)
            for batch, value in zip(expected, walk.values(made[stop]), strict=True):
                np.testing.assert_allclose(value, batch[made[stop]], rtol=1e-5, atol=1e-6)


def test_sequences_and_texts_are_carried(build, normal):
    text = """g (seq(float[N,8]) s, string[N] t) => (float[M,8] y, string[N] u, seq(float[N,8]) e) {
        h = SequenceAt(s, one) k = MatMul(h, w) q = SequenceInsert(s, k) u = Identity(t) e = SequenceEmpty()
        [b] y = ConcatFromSequence<axis=0>(q) }"""
    feeds = {"s": [normal(2, 8), normal(3, 8)], "t": np.array(["a", "bc"], object)}
    model = compress.load(build(text, w=normal(8, 8), one=np.int64(1)), calibration=[feeds])
    expected = model.run(feeds)[0]
    with Walk(model.ir, model.batches()) as walk:
        walk.advance("b")
        np.testing.assert_allclose(next(walk.values("y")), expected, rtol=1e-5)


def test_a_weight_that_changes_counts_from_there_on(build, normal):
    text = "g (float[N,8] x) => (float[N,8] y) { [a] h = MatMul(x, w) [b] k = MatMul(h, v) [c] y = MatMul(k, v) }"
    x, w, v = normal(4, 8), normal(8, 8), normal(8, 8)
    model = compress.load(build(text, w=w, v=v), calibration=[x])
    with Walk(model.ir, model.batches()) as walk:
        walk.advance("b")
        for name in ("w", "v"):
            model.graph.initializers[name].const_value = ir.tensor(np.zeros((8, 8), np.float32))
        walk.advance("b")
        np.testing.assert_allclose(next(walk.values("h")), x @ w, rtol=1e-5)
        walk.advance("c")
        assert not next(walk.values("k")).any()
