"""What the processor is taken to do with 8-bit integers."""

import platform

import pytest

from compress import cpu


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", {"avx2"}, True),
        ("x86_64", {"avx2", "avx512_vnni"}, False),
        ("x86_64", set(), True),
        ("aarch64", set(), False),
        ("arm64", set(), False),
    ],
)
def test_sums_saturate_on_x86_without_vnni(
    machine: str, flags: set[str], saturates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(cpu, "flags", lambda: frozenset(flags))
    assert cpu.saturates() is saturates
    assert cpu.weight_bits("auto") == (7 if saturates else 8)
    assert (cpu.weight_bits(7), cpu.weight_bits(8)) == (7, 8)
