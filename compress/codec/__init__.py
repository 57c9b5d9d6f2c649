"""Packed models: weights coded without loss, in one file that restores the ONNX model bit for bit."""

from compress.codec.container import Index
from compress.codec.packing import pack, unpack
from compress.codec.runtime import open

__all__ = ["Index", "open", "pack", "unpack"]
