"""Joules, bytes and seconds of a graph on named hardware."""

from compress.estimator.coded import Coded
from compress.estimator.cost import Cost, distinguishable
from compress.estimator.fitting import Fit, Measurement, fit
from compress.estimator.generation import Generation, estimate_generation
from compress.estimator.hardware import Profile, ids, load
from compress.estimator.operating import PointEstimate, compare_points
from compress.estimator.parallel import ParallelEstimate, estimate_parallel
from compress.estimator.scoring import Estimate, LayerCost, estimate

__all__ = [
    "Coded",
    "Cost",
    "Estimate",
    "Fit",
    "Generation",
    "LayerCost",
    "Measurement",
    "ParallelEstimate",
    "PointEstimate",
    "Profile",
    "compare_points",
    "distinguishable",
    "estimate",
    "estimate_generation",
    "estimate_parallel",
    "fit",
    "ids",
    "load",
]
