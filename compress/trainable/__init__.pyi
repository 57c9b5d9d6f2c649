from .module import Trainable as Trainable
from .module import from_torch as from_torch
from .module import to_torch as to_torch
from .roles import trained_initializers as trained_initializers
