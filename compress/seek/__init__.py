"""The best model under a budget: what can be decided, what it loses, what it costs, and the choice."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
