"""The graph as a torch module, one small function an operator."""
