"""Choosing channels: shares of each group, and what is removed fits every copy of a graph."""

import numpy as np

import compress
from compress.prune.channels import MOST, _shares, most_important
from compress.prune.coupling import Coupling


def test_the_least_worthy_of_all_groups_go_first():
    worth = [np.array([1.0, 2.0, 30.0, 40.0]), np.array([3.0, 50.0, 60.0, 70.0])]
    assert _shares(worth, 3 / 8) == [0.5, 0.25]


def test_no_group_loses_nearly_all():
    worth = [np.arange(10.0), 100 + np.arange(10.0)]
    assert _shares(worth, 0.5) == [MOST, 0.1]


def test_themost_important_channels_stay_and_ties_keep_their_order():
    np.testing.assert_array_equal(
        most_important(np.array([1.0, 3.0, 1.0, 2.0]), 3), [True, True, False, True]
    )


def test_a_removal_fits_every_copy(build, normal):
    body = "{ a = MatMul(x, w1)  r = Relu(a)  y = MatMul(r, w2) }"
    proto = build(f"net (float[N,4] x) => (float[N,3] y) {body}", w1=normal(4, 6), w2=normal(6, 3))
    model = compress.load(proto)
    coupling = Coupling(model.ir)
    group = coupling.groups[0]
    copies = [model.copy() for _ in range(2)]
    mask = np.arange(6) % 2 == 0
    coupling.removal({group: mask}).apply(copies[0].graph)
    coupling.removal({group: ~mask}).apply(copies[1].graph)
    feeds = {"x": normal(5, 4)}
    parts = [copy.run(feeds)[0] for copy in copies]
    np.testing.assert_allclose(sum(parts), model.run(feeds)[0], rtol=1e-4, atol=1e-5)
    assert [copy.graph.initializers["w2"].shape for copy in copies] == [(3, 3), (3, 3)]
    assert model.graph.initializers["w1"].shape == (4, 6)
