from .blocks import drop_blocks as drop_blocks
from .low_rank import factorize as factorize
from .sparsity import sparsify as sparsify
