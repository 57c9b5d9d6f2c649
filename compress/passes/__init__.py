"""The catalogue of passes: one import line a pass."""

from compress.passes.coded_weights import CodedWeights
from compress.passes.correct_bias import CorrectBias
from compress.passes.drop_blocks import DropBlocks
from compress.passes.equalize import Equalize
from compress.passes.factorize import Factorize
from compress.passes.finetune import Finetune
from compress.passes.float_weights import Float16, FloatWeights
from compress.passes.fold import Fold
from compress.passes.int8 import Int8
from compress.passes.int8_dynamic import Int8Dynamic
from compress.passes.int8_static import Int8Static
from compress.passes.integer_weights import Int4Weights, Int8Weights, IntegerWeights
from compress.passes.palettize import Palettize
from compress.passes.per_layer import PerLayer
from compress.passes.prune_channels import PruneChannels
from compress.passes.qat import Qat
from compress.passes.smooth import Smooth
from compress.passes.sparsify import Sparsify

__all__ = [
    "CodedWeights",
    "CorrectBias",
    "DropBlocks",
    "Equalize",
    "Factorize",
    "Finetune",
    "Float16",
    "FloatWeights",
    "Fold",
    "Int4Weights",
    "Int8",
    "Int8Dynamic",
    "Int8Static",
    "Int8Weights",
    "IntegerWeights",
    "Palettize",
    "PerLayer",
    "PruneChannels",
    "Qat",
    "Smooth",
    "Sparsify",
]
