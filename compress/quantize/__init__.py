"""Number formats on a graph: where integers begin and end, how weights are rounded, how nodes are placed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
