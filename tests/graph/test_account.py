"""Records of weights that a pass left and did not tell of, with the reason."""

import numpy as np
import onnx_ir as ir
import pytest

import compress
from compress.changes import Change, Reason
from compress.errors import PassError
from compress.graph.account import coverage, is_same, left_alone
from compress.passes import Float16, Int8Weights, Sparsify

TEXT = """g (float[N,8] x) => (float[N,6] y) {
    [one] a = MatMul(x, w) [two] b = MatMul(a, w) [odd] c = MatMul(b, v) d = Add(c, bias) [add] y = Add(d, t)
}"""


@pytest.fixture
def model(build, normal):
    sizes = {"w": (8, 8), "v": (8, 6), "bias": (6,), "t": (5, 6)}
    return compress.load(
        build(TEXT, **{name: normal(*size) for name, size in sizes.items()}), calibration=[normal(5, 8)]
    )


def reasons(records):
    return {record.layer: record.skipped for record in records}


def test_every_weight_gets_the_reason_that_fits(model):
    assert reasons(left_alone(model.ir, model.copy().ir, [], lambda *names: "odd" not in names)) == {
        "w": Reason.SHARED,
        "v": Reason.LEFT_OUT,
        "bias": Reason.VECTOR,
        "t": Reason.USE.because("by Add"),
    }


def test_a_record_of_the_pass_stands_and_a_claim_is_no_reason(model):
    own = [Change("odd", skipped=Reason.LOSS), Change("one", "half of it is zero")]
    assert set(reasons(left_alone(model.ir, model.copy().ir, own, lambda *_: True))) == {"w", "bias", "t"}


def test_infinite_values_and_other_types_are_told(build, normal):
    text = "g (double[N,8] x) => (double[N,8] y) { h = MatMul(x, w) y = MatMul(h, v) }"
    broken = normal(8, 8)
    broken[0] = np.inf
    wide = compress.load(build(text, w=normal(8, 8).astype(float), v=normal(8, 8).astype(float)))
    assert set(reasons(left_alone(wide.ir, wide.ir, [], lambda *_: True)).values()) == {
        Reason.TYPE.because("double")
    }
    text = text.replace("double", "float")
    single = compress.load(build(text, w=broken, v=normal(8, 8)))
    assert reasons(left_alone(single.ir, single.ir, [], lambda *_: True))["w"] == Reason.NOT_FINITE


def test_the_default_of_an_input_is_told(build, normal):
    text = "g (float[N,8] x, float[8,8] w) => (float[N,8] y) { h = MatMul(x, w) y = MatMul(h, v) }"
    small = Int8Weights()(compress.load(build(text, w=normal(8, 8), v=normal(8, 8))))
    assert reasons(small.changes)["w"] == Reason.INPUT


def test_a_pass_that_claims_and_changes_nothing_is_found_out(build, normal):
    text = "g (float16[N,8] x) => (float16[N,8] y) { y = MatMul(x, w) }"
    half = compress.load(build(text, w=normal(8, 8).astype(np.float16)))
    result = Float16(compute="float16")(half)
    assert is_same(half.ir, result.ir)
    assert not any(change.action for change in result.changes)
    assert {Reason.of(change.skipped) for change in result.changes} <= {Reason.NO_GAIN, Reason.TYPE}


def test_coverage_counts_what_compressing_passes_did(model):
    sparse = Sparsify(include=("odd",))(model)
    total = 4 * (64 + 48 + 6 + 30)
    found = coverage(model.ir, sparse.ir, sparse.changes)
    assert found.compressed == pytest.approx(48 * 4 / total)
    assert found.reason == Reason.LEFT_OUT
    assert coverage(model.ir, sparse.ir, []).compressed == 0, "new content without a record is no compression"
    small = Int8Weights()(model)
    assert coverage(model.ir, small.ir, small.changes).compressed == pytest.approx((64 + 48) * 4 / total)


def test_coverage_knows_the_names_that_nodes_get(build, normal):
    model = compress.load(
        build("g (float[N,64] x) => (float[N,32] y) { y = MatMul(x, w) }", w=normal(64, 32))
    )
    sparse = Sparsify(solver="magnitude")(model)
    found = coverage(model.ir, sparse.ir, sparse.changes, recorded=model.prepared().ir)
    assert (found.compressed, found.reason) == (1.0, "")


def test_models_differ_by_a_number_a_node_or_an_attribute(model, build, normal):
    assert is_same(model.ir, model.copy().ir)
    for change in ("number", "node", "attribute"):
        other = model.copy()
        if change == "number":
            value = other.graph.initializers["w"]
            value.const_value = ir.tensor(model.graph.initializers["w"].const_value.numpy() + 1)
        elif change == "node":
            other.graph[0].op_type = "Gemm"
        else:
            other.graph[0].attributes.add(ir.AttrInt64("a", 1))
        assert not is_same(model.ir, other.ir)


@pytest.mark.parametrize(("pattern", "near"), [("*od", "odd"), ("odd_", "odd"), ("bais", "bias")])
def test_patterns_that_match_nothing_are_refused_with_the_nearest_name(model, pattern, near):
    for settings in ({"include": (pattern,)}, {"exclude": (pattern,)}):
        (setting,) = settings
        with pytest.raises(
            PassError, match=rf"{setting}: no layer or weight is called .*; did you mean '{near}'"
        ):
            Int8Weights(**settings)(model)


def test_patterns_may_name_what_an_earlier_pass_took_away(model):
    sparse = Sparsify(include=("odd",))(model)
    small = Int8Weights(include=("odd",))(sparse)
    assert Int8Weights(exclude=("v",))(small).changes
