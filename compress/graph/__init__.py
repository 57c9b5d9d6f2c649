"""What passes need of a graph."""
