"""Pure tensor functions: they know nothing of graphs or passes."""
