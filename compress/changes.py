"""The account of a pass: a change for every layer that it looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """What a pass did to one layer, or why it left the layer alone."""

    layer: str
    """Name of the node, or of the tensor, that was changed."""
    action: str = ""
    """What was done, in words; empty when the layer was skipped."""
    bytes_before: int = 0
    """Stored bytes of the layer's weights before the pass."""
    bytes_after: int = 0
    """Stored bytes after it: scales, zero points and codebooks included."""
    error: float | None = None
    """Relative error of the weights, ``|w - w'| / |w|`` in the Frobenius norm; None where there is none."""
    skipped: str = ""
    """Why nothing was done; empty when something was."""
    by: str = ""
    """Name of the pass."""
