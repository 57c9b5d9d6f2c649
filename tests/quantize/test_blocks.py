"""Where a graph is cut into blocks."""

from compress.graph.layers import layers
from compress.quantize import blocks as cutting
from compress.quantize.blocks import blocks

CONV = "Conv<pads=[1,1,1,1]>"


def _cut(build, normal, body, count):
    text = f"g (float[N,4,6,6] x) => (float[N,4,6,6] y) {{ {body} }}"
    proto = build(text, **{f"w{number}": normal(4, 4, 3, 3) for number in range(count)})
    graph = cutting.ir.from_proto(proto).graph
    found = blocks(graph, list(layers(graph)))
    return [(block.names, block.inputs, block.outputs) for block in found]


def test_a_shortcut_makes_a_block_and_what_follows_the_sum_goes_with_it(build, normal):
    body = f"""a = {CONV}(x, w0) b = Relu(a) c = {CONV}(b, w1) d = Relu(c) e = {CONV}(d, w2) f = Add(e, b)
        h = Relu(f) y = {CONV}(h, w3)"""
    assert _cut(build, normal, body, 4) == [
        (("w0",), ("x",), ("b",)),
        (("w1", "w2"), ("b",), ("h",)),
        (("w3",), ("h",), ("y",)),
    ]


def test_single_layers_in_a_row_go_together(build, normal):
    body = "".join(f"v{i + 1} = {CONV}(v{i}, w{i}) " for i in range(4))
    body = f"{body} y = Relu(v4)".replace("v0", "x")
    assert [names for names, _, _ in _cut(build, normal, body, 4)] == [("w0", "w1", "w2"), ("w3",)]


def test_too_large_a_block_falls_apart(build, normal, monkeypatch):
    monkeypatch.setattr(cutting, "MOST_LAYERS", 2)
    monkeypatch.setattr(cutting, "TOGETHER", 1)
    body = f"""a = {CONV}(x, w0) b = {CONV}(a, w1) c = {CONV}(b, w2) d = {CONV}(c, w3) e = Add(d, b)
        y = Add(e, a)"""
    assert _cut(build, normal, body, 4) == [
        (("w0",), ("x",), ("a",)),
        (("w1",), ("a",), ("b",)),
        (("w2",), ("b",), ("c",)),
        (("w3",), ("c", "b", "a"), ("y",)),
    ]


def test_what_depends_on_no_layer_may_be_carried_along(build, normal, monkeypatch):
    monkeypatch.setattr(cutting, "TOGETHER", 1)
    body = f"""m = Sigmoid(x) a = {CONV}(x, w0) b = Mul(a, m) k = Neg(b) c = {CONV}(k, w1) d = Add(c, k)
        y = Mul(d, m)"""
    found = _cut(build, normal, body, 2)
    assert [names for names, _, _ in found] == [(), ("w0",), ("w1",)]
    assert set(found[2][1]) == {"k", "m"}
