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
