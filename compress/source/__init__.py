"""Sources of models: files, folders and modules become a `Model`; there is one file for each kind.

Each kind loads its library (ONNX, torch, transformers) when a source of that kind is first read.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
