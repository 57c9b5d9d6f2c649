from .blocks import drop_blocks as drop_blocks
from .channels import Pruning as Pruning
from .channels import remove_channels as remove_channels
from .low_rank import factorize as factorize
from .sparsity import sparsify as sparsify
