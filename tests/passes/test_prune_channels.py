"""prune-channels: what is removed, what stays and why, on small graphs written as text."""

from typing import get_args

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from compress.changes import Reason
from compress.data import Data
from compress.errors import LimitError, PassError
from compress.model import Model
from compress.passes.prune_channels import PruneChannels
from compress.prune.coupling import Coupling, Kind, Removal
from compress.prune.price import price
from compress.prune.saliency import importance

BODY = """<ir_version: 10, opset_import: ["" : 21]>
network (float[N,3,8,8] x) => (float[N,5] y) {
  [first] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  [active] r = Relu(a)
  [second] b = Conv<pads=[1,1,1,1]>(r, w2, b2)
  [skip] s = Add(r, b)
  [third] c = Conv<pads=[1,1,1,1]>(s, w3, b3)
  [pool] p = GlobalAveragePool(c)
  [flat] f = Flatten(p)
  [head] y = Gemm(f, w4, b4)
}"""
SHAPES = {
    "w1": (16, 3, 3, 3),
    "b1": (16,),
    "w2": (16, 16, 3, 3),
    "b2": (16,),
    "w3": (12, 16, 3, 3),
    "b3": (12,),
    "w4": (12, 5),
    "b4": (5,),
}


@pytest.fixture
def model():
    inputs = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in SHAPES.items())
    graph = ir.from_onnx_text(BODY.replace("8] x)", f"8] x, {inputs})"))
    rng = np.random.default_rng(0)
    for value in list(graph.graph.inputs)[1:]:
        array = rng.normal(size=SHAPES[value.name]).astype(np.float32)
        graph.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=value.name)
        graph.graph.register_initializer(value)
    return Model(graph)


def shape(model, name):
    return tuple(model.graph.initializers[name].const_value.shape.numpy())


def test_halving_shrinks_every_tensor_and_accounts_for_it(model):
    half = PruneChannels(ratio=0.5)(model)
    assert [shape(half, name) for name in ("w1", "w2", "w3", "w4")] == [
        *((8, 3, 3, 3), (8, 8, 3, 3), (6, 8, 3, 3), (6, 5))
    ]
    done = [change for change in half.changes if change.action]
    assert sum(c.bytes_before for c in done) == model.weight_bytes
    assert sum(c.bytes_after for c in done) == half.weight_bytes
    assert done[0].layer == "first"
    assert done[0].action == "weights 16x3x3x3 to 8x3x3x3"
    assert [(c.layer, c.skipped) for c in half.changes if c.skipped] == [
        ("head", Reason.USE.because("it is a dimension of a graph output, its 5 channels stay"))
    ]
    assert shape(model, "w1") == (16, 3, 3, 3)


def test_channels_with_small_weights_go_first(model):
    for name, axis in (("w1", 0), ("w2", 0), ("w2", 1), ("w3", 1)):
        value = model.graph.initializers[name]
        array = np.array(value.const_value.numpy())
        array[(slice(None),) * axis + ([2, 5, 7],)] *= 1e-3
        value.const_value = ir.tensor(array, name=name)
    kept = PruneChannels(ratio=0.2, include=("first",))(model)
    expected = np.delete(model.graph.initializers["w1"].const_value.numpy(), [2, 5, 7], axis=0)
    np.testing.assert_array_equal(kept.graph.initializers["w1"].const_value.numpy(), expected)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"ratio": 0.3}, (12, 9)),
        ({"ratio": 0.3, "round_to": 8}, (16, 12)),
        ({"ratio": 0.5, "round_to": 8}, (8, 8)),
        ({"ratio": 0.9, "minimum": 4}, (4, 4)),
        ({"ratio": 0.5, "exclude": ("second",)}, (16, 6)),
        ({"ratio": 0.5, "include": ("third",)}, (16, 6)),
    ],
)
def test_how_many_channels_are_kept(model, settings, kept):
    pruned = PruneChannels(**settings)(model)
    assert (shape(pruned, "w1")[0], shape(pruned, "w3")[0]) == kept


def test_nothing_to_remove_says_so(model):
    change = PruneChannels(ratio=0.01)(model).changes[-1]
    assert not change.action
    assert "after rounding, none is left to remove" in change.skipped


def test_a_graph_that_no_longer_runs_is_an_error(model, monkeypatch):
    def half_done(self, graph):
        value = graph.initializers["w1"]
        value.const_value = ir.tensor(value.const_value.numpy()[:4], name="w1")

    monkeypatch.setattr(Removal, "apply", half_done)
    with pytest.raises(PassError, match="the graph without the channels does not run"):
        PruneChannels()(model)


def test_settings_are_checked():
    with pytest.raises(ValidationError):
        PruneChannels(ratio=1.0)
    assert repr(PruneChannels(ratio=0.5, round_to=8)) == "prune-channels: {ratio: 0.5, round_to: 8}"


def test_the_kinds_are_those_of_the_coupling_groups():
    (literal, _) = get_args(PruneChannels.model_fields["kinds"].annotation)
    assert get_args(literal) == get_args(Kind)


@pytest.mark.parametrize("of", ["macs", "weight-bytes"])
def test_a_share_of_the_cost_is_met_closely(model, of):
    pruned = PruneChannels(ratio=0.6, of=of)(model)
    left = price(pruned, of, "cpu", {}) / price(model, of, "cpu", {})
    assert 0.3 < left <= 0.4


def test_a_share_of_the_energy(model):
    pruned = PruneChannels(ratio=0.3, of="energy", hardware="eyeriss-v1")(model)
    left, whole = (price(each, "energy", "eyeriss-v1", {}) for each in (pruned, model))
    assert 0.5 < left / whole <= 0.7


def test_a_share_that_cannot_be_reached_says_what_to_do(model):
    with pytest.raises(LimitError, match="save less than 99% of the macs"):
        PruneChannels(ratio=0.99, of="macs", minimum=8)(model)


def test_global_scope_takes_from_where_the_least_important_are(model):
    """Channels 0 to 7 of the third layer do next to nothing."""
    for name, axis in (("w3", 0), ("w4", 0)):
        value = model.graph.initializers[name]
        array = np.array(value.const_value.numpy())
        array[(slice(None),) * axis + (slice(8),)] *= 1e-3
        value.const_value = ir.tensor(array, name=name)
    pruned = PruneChannels(ratio=0.25, scope="global")(model)
    assert (shape(pruned, "w1")[0], shape(pruned, "w3")[0]) == (16, 5)


def test_activation_importance_sees_what_weights_do_not(model):
    """Channels 1 and 4 are large in their weights and never active."""
    value = model.graph.initializers["w1"]
    array = np.array(value.const_value.numpy())
    array[[1, 4]] = -10.0
    value.const_value = ir.tensor(array, name="w1")
    for name in ("w2", "b2"):
        value = model.graph.initializers[name]
        array = np.array(value.const_value.numpy())
        array[[1, 4]] = 0.0
        value.const_value = ir.tensor(array, name=name)
    rng = np.random.default_rng(0)
    model.calibration = Data([rng.uniform(0.5, 1, size=(4, 3, 8, 8)).astype(np.float32)])
    settings = {"ratio": 0.125, "include": ("first",)}
    kept = [
        bool(
            (
                PruneChannels(importance=kind, **settings)(model).graph.initializers["w1"].const_value.numpy()
                == -10
            ).any()
        )
        for kind in ("magnitude", "activation")
    ]
    assert kept == [True, False]


def test_without_settings_gradients_choose_among_all_channels(model):
    """Of the third layer, channels 3 to 8 do next to nothing, though their weights are as large as any."""
    value = model.graph.initializers["w4"]
    array = np.array(value.const_value.numpy())
    array[3:9] *= 1e-2
    value.const_value = ir.tensor(array, name="w4")
    value = model.graph.initializers["w3"]
    array = np.array(value.const_value.numpy())
    array[3:9] *= 100
    value.const_value = ir.tensor(array / 100, name="w3")
    rng = np.random.default_rng(0)
    model.calibration = Data([rng.normal(size=(8, 3, 8, 8)).astype(np.float32) for _ in range(4)])
    gone = PruneChannels(ratio=6 / 28)(model)
    assert shape(gone, "w1")[0] + shape(gone, "w3")[0] == 22
    assert shape(gone, "w3")[0] < 9
    by_size = PruneChannels(ratio=6 / 28, importance="magnitude")(model)
    assert (shape(by_size, "w1")[0], shape(by_size, "w3")[0]) == (13, 10)


def test_no_group_loses_more_than_nine_tenths_to_the_others(model):
    rng = np.random.default_rng(0)
    model.calibration = Data([rng.normal(size=(8, 3, 8, 8)).astype(np.float32)])
    tiny = PruneChannels(ratio=0.99)(model)
    assert (shape(tiny, "w1")[0], shape(tiny, "w3")[0]) == (2, 2)


def test_a_graph_that_torch_cannot_run_is_pruned_by_magnitude(model):
    groups = Coupling(model.ir).groups[:2]
    model.calibration = Data([np.ones((8, 3, 8, 8), np.float32)])
    assert importance("auto", model, groups, seed=0)[0] == "fisher"
    relu = next(node for node in model.graph if node.op_type == "Relu")
    relu.op_type = "StringNormalizer"  # which has no counterpart in torch
    assert importance("auto", model, groups, seed=0)[0] == "magnitude"


def test_random_importance_depends_on_the_seed_alone(model):
    first, again, other = (PruneChannels(importance="random", seed=seed)(model) for seed in (1, 1, 2))
    weights = [m.graph.initializers["w1"].const_value.numpy() for m in (first, again, other)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_repair_lowers_the_error(model):
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(16, 3, 8, 8)).astype(np.float32) for _ in range(5)]
    model.calibration = Data(batches[:4])
    want = model.run({"x": batches[4]})[0]
    plain, mended = (
        np.linalg.norm(PruneChannels(repair=repair)(model).run({"x": batches[4]})[0] - want)
        for repair in (False, True)
    )
    assert mended < 0.7 * plain


def test_a_network_that_runs_at_some_sizes_only_is_traced_at_those_of_its_data():
    """The height must be 8 before the Squeeze, which neither a prime nor the default is."""
    graph = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (float[N,1,H,W] x, float[6,1,8,1] w1, float[6,3] w2, int64[1] two) => (float[N,W,3] y) {
      [first] a = Conv(x, w1)  s = Squeeze(a, two)  t = Transpose<perm=[0,2,1]>(s)  y = MatMul(t, w2)
    }""")
    for value in list(graph.graph.inputs)[1:]:
        array = np.ones(tuple(value.shape.numpy()), np.float32)
        graph.graph.inputs.remove(value)
        value.const_value = ir.tensor(np.array([2]) if value.name == "two" else array, name=value.name)
        graph.graph.register_initializer(value)
    model = Model(graph, calibration=Data([np.ones((1, 1, 8, 5), np.float32)]))
    assert shape(PruneChannels(ratio=0.5)(model), "w2") == (3, 3)
