"""How good a variant is: its metric, and what it loses and gains compared with the original."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
