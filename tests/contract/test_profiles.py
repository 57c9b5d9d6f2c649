"""Every profile keeps the contract: sources for every number, and energies ordered as physics demands."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from compress.estimator import Profile, estimate, ids, load
from compress.estimator.hardware import Number


@pytest.fixture(params=ids())
def profile(request: pytest.FixtureRequest) -> Profile:
    return load(request.param)


def product(rows: int, width: int, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A matrix product and a Relu."""
    x = helper.make_tensor_value_info("x", dtype, [rows, width])
    y = helper.make_tensor_value_info("y", dtype, [rows, width])
    weight = helper.make_tensor("w", dtype, [width, width], [1.0] * width * width)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_every_number_has_source_scope_and_tag(profile: Profile) -> None:
    assert profile.quantities()
    for path, quantity in profile.quantities():
        assert profile.sources[quantity.source].strip(), path
        assert quantity.scope.strip(), path
        assert quantity.low_factor <= 1 <= quantity.high_factor, path
    unused = set(profile.sources) - {quantity.source for _, quantity in profile.quantities()}
    assert not unused, f"sources that no number of {profile.id}.yaml is from: {sorted(unused)}"


def test_identifier_is_the_file_name(profile: Profile) -> None:
    assert profile.id in ids(), f"id: {profile.id} must be the name of the file"


def test_memories_grow_outward(profile: Profile) -> None:
    sizes = [memory.capacity_bytes.value for memory in profile.memories if memory.capacity_bytes]
    assert sizes == sorted(sizes, reverse=True), "list memories from the outermost and largest inward"


def test_energy_lies_between_low_and_high(profile: Profile) -> None:
    total = estimate(product(4, 64), profile).total
    assert 0 < total.energy_low <= total.energy_joules <= total.energy_high
    assert total.seconds > 0
    assert total.macs == 4 * 64 * 64


def test_wider_numbers_never_cost_less(profile: Profile) -> None:
    for kind in ("int", "float"):
        costs = []
        for bits in (8, 16, 32):
            units, rounds = profile.unit_for(Number(kind, bits))  # type: ignore[arg-type]
            costs.append((units.pj_per_mac.value * rounds, rounds / units.macs_per_second.value))
        assert [c[0] for c in costs] == sorted(c[0] for c in costs)
        assert [c[1] for c in costs] == sorted(c[1] for c in costs)


def test_larger_products_cost_more(profile: Profile) -> None:
    energies = [
        estimate(product(rows, width), profile).total.energy_joules
        for rows, width in ((1, 64), (8, 64), (8, 128))
    ]
    assert energies == sorted(energies)
    assert energies[0] < energies[-1]
