from .comparison import Comparison as Comparison
from .comparison import LayerNoise as LayerNoise
from .comparison import compare as compare
