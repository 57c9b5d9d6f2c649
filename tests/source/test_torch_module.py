"""Torch modules and exported programs: names kept, sizes that may change left open."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import compress
from compress.errors import DataError, ModelError, TrustError

EXAMPLE = (torch.zeros(2, 4),)


def test_a_module_is_exported_with_its_names_and_free_sizes():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )
    module.eval()
    model = compress.load(module, example_inputs=torch.zeros(1, 3, 4, 4, requires_grad=True))
    assert set(module.state_dict()) - {"1.num_batches_tracked"} <= set(model.graph.initializers)
    assert "BatchNormalization" in [node.op_type for node in model.graph]
    assert not [node.name for node in model.graph if node.metadata_props]  # stack traces of the exporter
    for rows in (1, 7):
        x = torch.randn(rows, 3, 4, 4)
        with torch.no_grad():
            expected = module(x).numpy()
        np.testing.assert_allclose(model.run({"input": x.numpy()})[0], expected, rtol=1e-4, atol=1e-5)


def test_an_axis_that_differs_between_batches_is_free():
    module = nn.Linear(4, 2)
    batches = [np.zeros((2, 5, 4), np.float32), np.zeros((3, 9, 4), np.float32)]
    model = compress.load(module, calibration=batches)
    assert model.run({"input": np.zeros((1, 17, 4), np.float32)})[0].shape == (1, 17, 2)


def _shapes(model):
    shapes = [each.shape for each in model.graph.inputs]
    return [[size if isinstance(size, int) else size.value for size in shape] for shape in shapes]


class Steps(nn.Module):
    """Sequences in time order, whose sums depend on the axes by their meaning alone."""

    def forward(self, x, state):
        return x.cumsum(0) + state, state * 2


def test_axes_are_open_by_trying_and_named_by_what_they_are():
    model = compress.load(Steps(), example_inputs=(torch.randn(7, 3, 4), torch.randn(1, 3, 4)))
    assert _shapes(model) == [["x_0", "batch", "x_2"], [1, "batch", "x_2"]]
    x, state = np.ones((5, 2, 4), np.float32), np.ones((1, 2, 4), np.float32)
    assert model.run({"x": x, "state": state})[0][:, 0, 0].tolist() == [2, 3, 4, 5, 6]


class Columns(nn.Module):
    """A table of categories: its second axis is no sequence."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(9, 4) for _ in range(3)])

    def forward(self, x):
        return torch.cat([table(x[:, at]) for at, table in enumerate(self.tables)], -1)


def test_the_second_axis_of_integers_may_be_fixed():
    model = compress.load(Columns(), example_inputs=torch.ones(1, 3, dtype=torch.int64))
    assert _shapes(model) == [["batch", 3]]


class Unfaithful(nn.Module):
    """Gives other results while it is exported."""

    def forward(self, x):
        return x + 1 if torch.compiler.is_compiling() else x * 1


class Threshold(nn.Module):
    """Python decides by a size, which a graph cannot."""

    def forward(self, x):
        return x.cumsum(1) * (2 if x.shape[0] > 4 else 1)


def test_a_graph_that_is_not_the_module_is_refused_with_the_value():
    message = r"not the module: for x \[2, 2\], output '.*' at \[0, 0\] is 2.0 where torch gives 1.0"
    with pytest.raises(ModelError, match=message):
        compress.load(Unfaithful(), example_inputs=torch.ones(2, 2))


def test_a_size_is_closed_where_the_graph_departs_from_the_module():
    assert _shapes(compress.load(Threshold(), example_inputs=torch.ones(8, 2))) == [[8, "x_1"]]
    with pytest.raises(ModelError, match=r"axis 0 of input 'x', and the batches have 2, 8|not the module"):
        compress.load(Threshold(), calibration=[np.ones((8, 2), np.float32), np.ones((2, 2), np.float32)])


class Branches(nn.Module):
    def forward(self, x):
        raise KeyError("weird")


def test_modules_that_cannot_be_exported_are_refused():
    with pytest.raises(ModelError, match="torch cannot export the module: 'weird'"):
        compress.load(Branches(), example_inputs=EXAMPLE)
    with pytest.raises(ModelError, match="needs example inputs or calibration data"):
        compress.load(nn.Linear(4, 4))
    with pytest.raises(ModelError, match="2 example inputs for a module that takes 1"):
        compress.load(nn.Linear(4, 4), example_inputs=(*EXAMPLE, *EXAMPLE))
    with pytest.raises(ModelError, match="example input 'input': object is not an array"):
        compress.load(nn.Linear(4, 4), example_inputs=(object(),))
    with pytest.raises(ModelError, match=r"torch cannot export the module: .*missing a required argument"):
        compress.load(nn.Linear(4, 4), example_inputs={"wrong": EXAMPLE[0]})
    with pytest.raises(DataError, match="can be read only once"):
        compress.load(nn.Linear(4, 4), calibration=(x for x in EXAMPLE))


def test_pt2_files_need_trust(tmp_path):
    path = tmp_path / "model.pt2"
    path.write_bytes(b"no archive")
    with pytest.raises(TrustError, match=r"model\.pt2: loading a \.pt2 file can run code"):
        compress.load(path)
    with pytest.raises(ModelError, match=r"model\.pt2: cannot be read"):
        compress.load(path, trust=True)
    torch.export.save(torch.export.export(nn.Linear(4, 3), EXAMPLE), path)
    assert compress.load(path, trust=True).run({"input": np.zeros((2, 4), np.float32)})[0].shape == (2, 3)


def test_a_tied_embedding_stays_one_weight(transformer):
    tied = transformer.graph.initializers["embedding.weight"]
    assert {use.node.op_type for use in tied.uses()} == {"Gather", "Transpose"}
    sizes = [tuple(value.shape) for value in transformer.graph.initializers.values()]
    assert sizes.count((64, 32)) + sizes.count((32, 64)) == 1
    for shape in ((1, 5), (3, 17)):
        assert transformer.run({"tokens": np.ones(shape, np.int64)})[0].shape == (*shape, 64)
