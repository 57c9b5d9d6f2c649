"""Where the tasks of a recipe's plan run, and where their results are kept."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
