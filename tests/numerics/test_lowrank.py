"""Low rank: the best factors for the outputs, and ranks that fit a budget."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.numerics.lowrank import rank_for_error, ranks_for_size, spectrum


def correlated(features, samples=500):
    torch.manual_seed(0)
    return (torch.randn(samples, features) * torch.logspace(0, -2, features)) @ torch.randn(
        features, features
    )


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 99))
def test_all_components_give_the_weight(features, outputs, seed):
    torch.manual_seed(seed)
    weight, inputs = torch.randn(features, outputs), torch.randn(50, features)
    for found in (spectrum(weight), spectrum(weight, inputs.T @ inputs / 50)):
        torch.testing.assert_close((found.left @ found.right).float(), weight, rtol=1e-4, atol=1e-5)
        assert (found.energies.diff() <= 1e-9).all()


def test_the_energies_are_the_errors_of_the_outputs():
    inputs, weight = correlated(12), torch.randn(12, 9)
    found = spectrum(weight, inputs.T @ inputs / len(inputs), damping=0.0)
    for rank in (2, 5, 8):
        outputs = inputs @ (weight - (found.left[:, :rank] @ found.right[:rank]).float())
        energy = float((outputs**2).sum() / len(inputs))
        assert energy == pytest.approx(float(found.energies[rank:].sum()), rel=1e-2)


def test_seeing_the_inputs_beats_not_seeing_them():
    inputs, weight = correlated(32), torch.randn(32, 24)
    errors = [
        float((inputs @ (weight - (found.left[:, :6] @ found.right[:6]).float())).norm())
        for found in (spectrum(weight, inputs.T @ inputs / len(inputs)), spectrum(weight))
    ]
    assert errors[0] < 0.7 * errors[1]


def test_rank_for_an_error():
    found = spectrum(torch.diag(torch.tensor([4.0, 2.0, 1.0])))
    assert [rank_for_error(found, error) for error in (0.6, 0.4, 0.2, 0.1)] == [1, 2, 3, 3]


def test_ranks_fit_and_go_where_they_explain_most():
    torch.manual_seed(0)
    low = torch.randn(40, 3) @ torch.randn(3, 30)
    spectra = [spectrum(low), spectrum(torch.randn(40, 30))]
    ranks = ranks_for_size(spectra, 1400)
    assert ranks[0] == 3
    assert sum((rank or 0) * 70 for rank in ranks) <= 1400
    assert ranks_for_size(spectra, 1e9) == [3, None] or ranks_for_size(spectra, 1e9)[1] is None
