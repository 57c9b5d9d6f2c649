"""Interactive figures of results, for the report and for notebooks alike."""

from compress.report.plots.bars import dram_by_layer, energy_by_component, energy_by_layer
from compress.report.plots.front import accuracy_vs_energy
from compress.report.plots.rooflines import roofline

__all__ = ["accuracy_vs_energy", "dram_by_layer", "energy_by_component", "energy_by_layer", "roofline"]
