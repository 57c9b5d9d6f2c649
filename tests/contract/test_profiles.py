"""Every profile keeps the contract: sources for every number, and energies ordered as physics demands."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from compress.errors import DoesNotRunError
from compress.estimator import Profile, estimate, ids, load
from compress.estimator.hardware import Number


@pytest.fixture(params=ids())
def profile(request: pytest.FixtureRequest) -> Profile:
    return load(request.param)


def product(rows: int, width: int) -> onnx.ModelProto:
    """An integer matrix product, which every profile runs."""
    x = helper.make_tensor_value_info("x", TensorProto.INT8, [rows, width])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [rows, width])
    weight = helper.make_tensor("w", TensorProto.INT8, [width, width], [1] * width * width)
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g", [x], [y], [weight])
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
        named = (profile.runs_in(Number(kind, bits)) for bits in (8, 16, 32))  # type: ignore[arg-type]
        units = [profile.arithmetic[name] for name in named if name is not None]
        energies = [each.pj_per_mac.value for each in units]
        rates = [each.macs_per_second.value for each in units]
        assert energies == sorted(energies)
        assert rates == sorted(rates, reverse=True)


def test_floats_are_deployed_in_a_type_that_is_there_or_refused(profile: Profile) -> None:
    deployed = profile.runs_in(Number("float", 32))
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[4, 8] x, float[8, 8] w) => (float[4, 8] y)'
        " { y = MatMul(x, w) }"
    )
    if deployed is None:
        with pytest.raises(DoesNotRunError, match=f"{profile.id}: layer .* multiplies float32"):
            estimate(model, profile)
    else:
        told = {} if deployed == "fp32" else {"float32": deployed}
        assert estimate(model, profile).runs_as == told


def test_larger_products_cost_more(profile: Profile) -> None:
    energies = [
        estimate(product(rows, width), profile).total.energy_joules
        for rows, width in ((1, 64), (8, 64), (8, 128))
    ]
    assert energies == sorted(energies)
    assert energies[0] < energies[-1]
