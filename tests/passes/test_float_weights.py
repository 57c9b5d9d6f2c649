"""float-weights refuses settings that contradict each other."""

import pytest

from compress.passes import FloatWeights


def test_arithmetic_in_float16_reads_nothing_else():
    with pytest.raises(ValueError, match="leave 'format' out"):
        FloatWeights(compute="float16", format="bfloat16")
