"""Interactive figures of results, for the report and for notebooks alike."""

from compress.report.plots.bars import dram_by_layer, energy_by_component, energy_by_layer
from compress.report.plots.front import accuracy_vs_energy
from compress.report.plots.rooflines import roofline
from compress.report.plots.treemap import bytes_by_layer

__all__ = [
    "accuracy_vs_energy",
    "bytes_by_layer",
    "dram_by_layer",
    "energy_by_component",
    "energy_by_layer",
    "roofline",
]
