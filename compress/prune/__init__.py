"""Pruning: coupling groups of channels, residual blocks, sparsity and low rank."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
