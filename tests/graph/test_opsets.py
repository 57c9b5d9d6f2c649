"""A graph at a newer operator set is still the same model."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from compress.graph import files, opsets
from compress.graph.session import session

SHARED = "s = Softmax<axis=1>(x) l = LogSoftmax<axis=1>(s) y = Hardmax<axis=1>(l)"
GRAPHS = {
    "an Upsample before another node": (9, "u = Upsample<mode='linear'>(x, two) y = Neg(u)", "N,4,6,6"),
    "a nearest Resize before another node": (10, "u = Resize(x, two) y = Neg(u)", "N,4,6,6"),
    "several nodes in the place of one": (11, f"[soft] {SHARED}", "N,4,3,3"),
    "an output whose size is only named": (15, "y = Flatten(x)", "N,M"),
}


def _read(opset: int, body: str, output: str) -> ir.Model:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    text = body.replace("'", '"')
    proto = parser.parse_model(f"{head} g (float[N,4,3,3] x) => (float[{output}] y) {{ {text} }}")
    if "two" in body:
        proto.graph.initializer.append(numpy_helper.from_array(np.float32([1, 1, 2, 2]), "two"))
    return files.understood(proto)


@pytest.mark.parametrize("name", GRAPHS)
def test_values_names_and_shapes_stay(name: str) -> None:
    before = _read(*GRAPHS[name])
    after = opsets.raised(before, 21)
    assert opsets.opset(after) == 21
    x = np.random.default_rng(0).standard_normal((1, 4, 3, 3)).astype(np.float32)
    found, wanted = (session(each).run(None, {"x": x})[0] for each in (after, before))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert [str(value) for value in after.graph.outputs] == [str(value) for value in before.graph.outputs]
    assert max(Counter(node.name for node in after.graph).values()) == 1


def test_outputs_that_hold_maps_are_raised_too() -> None:
    text = """<ir_version: 8, opset_import: ["" : 13, "ai.onnx.ml" : 3]>
        g (float[N,2] x) => (seq(map(int64, float)) y) {
            p = Softmax<axis=1>(x) y = ai.onnx.ml.ZipMap<classlabels_int64s=[0, 1]>(p) }"""
    proto = parser.parse_model(text)
    after = files.to_proto(opsets.raised(files.understood(proto), 21))
    assert after.graph.output[0] == proto.graph.output[0]
    onnx.checker.check_model(after)
