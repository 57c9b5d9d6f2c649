"""Packed models: weights coded without loss, in one file that restores the ONNX model bit for bit."""

from compress.codec.container import Index, coded_bytes, is_packed
from compress.codec.packing import pack, unpack, unpacked
from compress.codec.runtime import open

__all__ = ["Index", "coded_bytes", "is_packed", "open", "pack", "unpack", "unpacked"]
