"""Fourier transforms and windows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compress.trainable.operators.table import Int, operator, torch_type


def _complex(x: Tensor) -> Tensor:
    """Read the last dimension, of one or two, as real and imaginary part."""
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)


@operator("DFT", since=20)
def discrete_fourier_transform(
    x: Tensor, length: Int | None = None, axis: Int = -2, *, inverse: int = 0, onesided: int = 0
) -> Tensor:
    """Fourier transform along an axis; the last dimension holds real and imaginary parts."""
    dim = axis % x.dim()
    signal = _complex(x)
    if inverse and onesided:
        real: Tensor = torch.fft.irfft(signal, length, dim)
        return real.unsqueeze(-1)
    one_way = torch.fft.rfft if onesided else torch.fft.fft
    transform = torch.fft.ifft if inverse else one_way
    return torch.view_as_real(transform(signal, length, dim))


@operator("DFT")
def discrete_fourier_transform_attribute(
    x: Tensor, length: Int | None = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0
) -> Tensor:
    """Fourier transform along an axis (opset 19 and older)."""
    return discrete_fourier_transform(x, length, axis, inverse=inverse, onesided=onesided)


@operator("STFT")
def short_time_fourier_transform(
    x: Tensor,
    frame_step: Int,
    window: Tensor | None = None,
    frame_length: Int | None = None,
    *,
    onesided: int = 1,
) -> Tensor:
    """Fourier transforms of overlapping frames of a signal [batch, length, 1 or 2]."""
    signal = _complex(x) if x.dim() == 3 else x
    length = frame_length if frame_length is not None else len(window) if window is not None else None
    if length is None:
        raise NotImplementedError("neither window nor frame length is given")
    frames = signal.unfold(1, length, frame_step)
    if window is not None:
        frames = frames * window
    transform = torch.fft.rfft if onesided else torch.fft.fft
    return torch.view_as_real(transform(frames, dim=-1))


def _register_window(name: str, parts: tuple[float, ...]) -> None:
    """Enter a window that is a sum of cosines of rising order, with these factors and alternating signs."""
    signed = [part * (-1) ** order for order, part in enumerate(parts)]

    @operator(name)
    def window(size: Int, *, output_datatype: int = 1, periodic: int = 1, device: torch.device) -> Tensor:
        count = size if periodic else size - 1
        angles = torch.arange(size, dtype=torch.float64, device=device) * (2 * math.pi / max(count, 1))
        cosines = torch.stack([part * torch.cos(order * angles) for order, part in enumerate(signed)])
        return cosines.sum(0).to(torch_type(output_datatype))


_register_window("HannWindow", (0.5, 0.5))
_register_window("HammingWindow", (25 / 46, 21 / 46))  # as ONNX has it
_register_window("BlackmanWindow", (0.42, 0.5, 0.08))
