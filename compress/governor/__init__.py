"""Which variant answers the next request: most accuracy within a budget of joules and a deadline."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
