import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compress.codec.coders import NUMBERS, Coder, CodingError, decode, encode

KINDS = [*NUMBERS, ""]


def entropy_bytes(codes: np.ndarray) -> float:
    """Bytes that a code of order 0 needs for integer codes."""
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / codes.size)).sum() / 8)


def coded(data: np.ndarray, kind: str) -> bytes:
    """Code bytes, and see that they come back."""
    coder, code = encode(data, kind)
    out = np.empty_like(data)
    decode(coder, code, kind, out)
    assert out.tobytes() == data.tobytes()
    return code


@given(arrays.arrays(np.uint8, st.integers(0, 300)), st.sampled_from(KINDS))
@settings(deadline=None, max_examples=60)
def test_any_bytes_come_back_and_take_no_more_room(data: np.ndarray, kind: str) -> None:
    assert len(coded(data, kind)) <= data.size


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "bfloat16"])
def test_every_float_comes_back_as_it_was(kind: str) -> None:
    width = NUMBERS[kind].itemsize
    special = {"float16": 0x7C01, "float32": 0x7F800001, "float64": 0x7FF0000000000001, "bfloat16": 0x7F81}
    signalling = np.array([special[kind]] * 50, f"<u{width}").view(np.uint8)
    subnormal = np.arange(100, dtype=f"<u{width}").view(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, 4000 * width, np.uint8)
    coded(np.concatenate([signalling, subnormal, noise]), kind)


@pytest.mark.parametrize(("share", "limit"), [(1.0, 1.002), (0.5, 1.003), (0.1, 1.01), (0.01, 1.05)])
def test_integer_codes_come_to_their_entropy_pruned_ones_too(share: float, limit: float) -> None:
    rng = np.random.default_rng(0)
    codes = np.clip(np.rint(rng.standard_normal(1 << 21) * 30), -127, 127).astype(np.int8)
    codes[rng.random(codes.size) >= share] = 0
    assert len(coded(codes.view(np.uint8), "int8")) < limit * entropy_bytes(codes)


def test_packed_nibbles_come_to_the_entropy_of_their_codes() -> None:
    codes = np.clip(np.rint(np.random.default_rng(0).standard_normal(1 << 22) * 2.5), -8, 7).astype(int) + 8
    packed = (codes[::2] | codes[1::2] << 4).astype(np.uint8)
    assert len(coded(packed, "uint8")) < 1.002 * entropy_bytes(codes)


def test_bfloat16_comes_to_two_thirds() -> None:
    weights = np.random.default_rng(0).standard_normal(1 << 20).astype(ml_dtypes.bfloat16)
    exponents = weights.view(np.uint16) >> 7 & 255
    split = entropy_bytes(exponents) + weights.size  # exponents coded, sign and mantissa as they are
    assert len(coded(weights.view(np.uint8), "bfloat16")) < split < 0.67 * weights.nbytes


def test_noise_is_kept_as_it_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 1 << 16, np.uint8)
    assert encode(noise, "uint8") == (Coder.RAW, noise.tobytes())


@pytest.mark.parametrize("coder", [Coder.RAW, Coder.ZSTD, Coder.PCODEC, 3])
@pytest.mark.parametrize("kind", ["uint8", "float32", "?"])
def test_damaged_codes_are_told(coder: int, kind: str) -> None:
    out = np.empty(4000, np.uint8)
    for code in (b"", b"\x28\xb5\x2f\xfd", bytes(100), encode(np.zeros(4004, np.uint8), "float32")[1]):
        with pytest.raises(CodingError):
            decode(coder, code, kind, out)
