"""Shares by group: names of groups, how many channels are kept, and one removal for all."""

import numpy as np
import pytest

import compress
from compress.errors import PassError
from compress.passes import PruneChannels
from compress.prune import saliency
from compress.prune.shares import Channels, named

BODY = "{ [a] h = MatMul(x, w1)  r = Relu(h)  [b] m = MatMul(r, w2)  s = Relu(m)  [c] y = MatMul(s, w3) }"


@pytest.fixture
def model(build, normal):
    proto = build(
        f"net (float[N,4] x) => (float[N,3] y) {BODY}", w1=normal(4, 8), w2=normal(8, 6), w3=normal(6, 3)
    )
    return compress.load(proto, calibration=[normal(32, 4) for _ in range(2)])


def shapes(model):
    return [tuple(model.graph.initializers[name].shape) for name in ("w1", "w2", "w3")]


def test_each_group_keeps_its_own_share(model):
    channels = Channels(model, "magnitude", repairs=False)
    counts = channels.counts({"b": 0.5, "a": 0.7})
    assert counts == {"a": 6, "b": 3}, "rounded up, in the order of the groups"
    small, changes = channels.pruned(counts)
    assert shapes(small) == [(4, 6), (6, 3), (3, 3)]
    assert {change.layer for change in changes} == {"a", "b", "c"}
    assert shapes(model) == [(4, 8), (8, 6), (6, 3)]


def test_one_share_for_all_is_what_prune_channels_does(model):
    base = model.prepared()
    small, _ = Channels(base).pruned(Channels(base).counts({"a": 0.5, "b": 0.5}))
    other = PruneChannels(ratio=0.5, repair=True, scope="local")(model)
    for name in ("w1", "w2", "w3"):
        np.testing.assert_array_equal(
            *(each.graph.initializers[name].const_value.numpy() for each in (small, other))
        )


def test_importance_is_measured_once(model, monkeypatch):
    asked = []

    def noted(*args, **settings):
        asked.append(args)
        return saliency.importance(*args, **settings)

    monkeypatch.setattr("compress.prune.shares.importance", noted)
    channels = Channels(model, "magnitude", repairs=False)
    for share in (0.5, 0.75):
        channels.pruned(channels.counts({"a": share}))
    assert len(asked) == 1


def test_a_share_that_rounds_to_everything_says_so(model):
    channels = Channels(model, "magnitude", repairs=False)
    _, (change,) = channels.pruned(channels.counts({"a": 0.99}))
    assert change.layer == "a"
    assert "after rounding" in change.skipped


def test_names_that_do_not_fit(model):
    channels = Channels(model)
    with pytest.raises(PassError, match="no coupling group is called 'aa'; did you mean 'a'"):
        channels.counts({"aa": 0.5})
    with pytest.raises(PassError, match="'c' keeps its channels: it is a dimension of a graph output"):
        channels.counts({"c": 0.5})
    assert channels.counts({"c": 1}) == {}, "a share of one asks for nothing"


def test_heads_and_their_width_have_names_of_their_own(transformer):
    groups = Channels(transformer.prepared()).groups
    kinds = {kind for name in groups for kind in ("(heads)", "(head-width)") if kind in name}
    assert kinds == {"(heads)", "(head-width)"}
    assert all(name == group.name or name.startswith(f"{group.name} (") for name, group in groups.items())


def test_groups_of_one_name_and_kind_are_numbered(model):
    first, second = list(Channels(model).groups.values())[:2]
    assert list(named([first, second, first])) == ["a (channels)", "b", "a (channels 2)"]
