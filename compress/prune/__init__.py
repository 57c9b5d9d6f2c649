"""Structured pruning: what shares its channels, what it is worth, and how it leaves the graph."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
