"""Packed models: weights coded without loss, in one file that restores the ONNX model bit for bit."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
