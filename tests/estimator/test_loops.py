"""Bodies of loops count as often as they run, and the estimate says how that is known."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import compress
from compress.estimator import estimate, loops

MACS = 8 * 8
SCAN = """
<ir_version: 8, opset_import: ["": 17]>
g (float[6, 8] x, float[8] s) => (float[8] e, float[6, 8] y) <float[8, 8] w> {
  e, y = Scan <num_scan_inputs = 1, body = b (float[8] a, float[8] r) => (float[8] n, float[8] o) {
    m = MatMul(r, w)
    n = Add(a, m)
    o = Identity(n)
  }> (s, x)
}"""


def parsed(text: str) -> onnx.ModelProto:
    """Return a model whose weight is the identity."""
    model = onnx.parser.parse_model(text)
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "w"))
    return model


def loop(limit: str = "n", ends: bool = False) -> onnx.ModelProto:
    """A product in a Loop; it may end as soon as the first number of its state is above 4."""
    going = "first = Gather(s, zero)  go = Less(first, four)" if ends else "go = Identity(c)"
    return parsed(f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 8] x, float[1, T] t) => (float[1, 8] y) <float[8, 8] w> {{
      sizes = Shape <start = 1> (t)
      none = Constant <value_ints = [0]> ()
      n = Squeeze(sizes, none)
      yes = Constant <value = bool {{1}}> ()
      rest = Constant <value_ints = [-1]> ()
      flat = Reshape(x, rest)
      z = Loop <body = b (int64 i, bool c, float[8] s) => (bool go, float[8] next) {{
        zero = Constant <value_int = 0> ()
        four = Constant <value_float = 4.0> ()
        one = Constant <value_float = 1.0> ()
        m = MatMul(s, w)
        next = Add(m, one)
        {going}
      }}> ({limit}, yes, flat)
      shape = Constant <value_ints = [1, 8]> ()
      y = Reshape(z, shape)
    }}""")


@pytest.mark.parametrize("profile", ["eyeriss-v1", "cpu"])
def test_a_count_that_follows_from_the_shapes_counts(profile: str) -> None:
    found = estimate(loop(), profile, shapes={"t": (1, 10)})
    assert found.total.macs == 10 * MACS
    (score,) = found.loops.values()
    assert (score.op_type, score.bodies) == ("Loop", 10)
    assert "state" in score.why


def test_a_limit_counts_as_the_most_and_nothing_as_once() -> None:
    limited = estimate(loop(ends=True), "eyeriss-v1", shapes={"t": (1, 10)})
    endless = estimate(loop("", ends=True), "eyeriss-v1")
    assert [next(iter(each.loops.values())).bodies for each in (limited, endless)] == [10, 1]
    assert "most" in next(iter(limited.loops.values())).why
    assert "not measured" in next(iter(endless.loops.values())).why


@pytest.mark.parametrize("limit", ["n", ""])
def test_calibration_data_tell_how_often_a_loop_runs(limit: str) -> None:
    feeds = [
        {"x": np.full((1, 8), first, np.float32), "t": np.zeros((1, 10), np.float32)} for first in (0, 2)
    ]
    model = compress.load(loop(limit, ends=True), calibration=feeds)
    found = estimate(model, "eyeriss-v1", shapes={"t": (1, 10)})
    (score,) = found.loops.values()
    assert score.bodies == 4  # five from 0 and three from 2
    assert "mean" in score.why
    assert found.total.macs == 4 * MACS


def test_loops_that_never_run_cost_nothing() -> None:
    assert estimate(loop(), "eyeriss-v1", shapes={"t": (1, 0)}).total.macs == 0


def test_a_scan_counts_its_length() -> None:
    found = estimate(parsed(SCAN), "eyeriss-v1")
    assert found.total.macs == 6 * MACS
    assert [each.bodies for each in found.loops.values()] == [6]


def test_rounds_of_loops_in_loops_and_branches_are_means() -> None:
    """The inner Loop runs i times in round i of the outer one, if i is not 0."""
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (int64 n) => (int64 y) {
      yes = Constant <value = bool {1}> ()
      start = Constant <value_int = 0> ()
      [outer] y = Loop <body = b (int64 i, bool c, int64 s) => (bool d, int64 e) {
        d = Identity(c)
        some = Cast <to = 9> (i)
        e = If <then_branch = t () => (int64 f) {
          [inner] f = Loop <body = r (int64 j, bool k, int64 p) => (bool l, int64 q) {
            l = Identity(k)
            q = Add(p, j)
          }> (i, c, s)
        }, else_branch = u () => (int64 v) { v = Identity(s) }> (some)
      }> (n, yes, start)
    }"""
    model = ir.from_onnx_text(text)
    feeds = [{"n": np.array(7)}, {"n": np.array(5)}]
    assert loops.measured(model, feeds) == {"outer": 6, "inner": round((21 + 10) / 12)}


def test_the_branch_that_is_taken_counts() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 8] x) => (float[1, 8] y) <float[8, 8] w> {
      no = Constant <value = bool {0}> ()
      y = If <then_branch = t () => (float[1, 8] f) { f = MatMul(x, w) },
              else_branch = u () => (float[1, 8] v) { v = Identity(x) }> (no)
    }"""
    assert estimate(parsed(text), "eyeriss-v1").total.macs == 0


def test_an_lstm_of_integers_multiplies_as_often_as_one_of_floats() -> None:
    rng = np.random.default_rng(0)
    steps, batch, size, hidden = 5, 2, 12, 8
    weights = {"w": (1, 4 * hidden, size), "r": (1, 4 * hidden, hidden)}
    constants = [
        onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=hidden)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, batch, size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [steps, 1, batch, hidden])
    graph = helper.make_graph([node], "g", [x], [y], constants)
    model = compress.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    short = compress.Pipeline([compress.passes.Int8Dynamic()])(model)
    assert any(each.op_type == "DynamicQuantizeLSTM" for each in short.graph)
    macs = [estimate(each, "eyeriss-v1").total.macs for each in (model, short)]
    assert macs == [steps * batch * 4 * hidden * (size + hidden)] * 2
