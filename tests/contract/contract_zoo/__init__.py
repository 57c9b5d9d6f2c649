"""Small models, one of each kind that people bring: `CASES` holds them by name.

Each is built by a function of a few lines, has feeds that it runs on, and runs in ONNX Runtime as it is.
"""

from contract_zoo import (
    control,
    fused,
    images,
    interfaces,
    products,
    ranked,
    recurrent,
    stored,
    types,
    versions,
)
from contract_zoo.case import CASES, Case

__all__ = [
    "CASES",
    "Case",
    "control",
    "fused",
    "images",
    "interfaces",
    "products",
    "ranked",
    "recurrent",
    "stored",
    "types",
    "versions",
]
