"""What a mask fills in, told from what a model computes."""

import numpy as np
import pytest

from compress.numerics.fills import is_fill

CASES = {
    "masked": ([1.0, -1e9, 0.5, -1e9], [False, True, False, True]),
    "lowest float": ([-3.4e38, 2.0, -3.4e38, np.nan], [True, False, True, False]),
    "one large number": ([1e9, 1.0, 0.5], [False, False, False]),
    "not far enough": ([-1e4, 200.0, -1e4], [False, False, False]),
    "sure probabilities": ([1.0, 1e-5, 1.0, 1e-6], [False, False, False, False]),
    "nothing else": ([-1e9, -1e9], [False, False]),
    "zeros beside": ([-1e9, 0.0, -1e9], [False, False, False]),
    "infinite": ([-np.inf, 1.0, -np.inf], [False, False, False]),
    "empty": ([], []),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fill_is_repeated_and_far_from_everything_else(case):
    values, expected = CASES[case]
    assert is_fill(np.array(values, np.float64)).tolist() == expected
