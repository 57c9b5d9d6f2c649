from .comparison import Comparison as Comparison
from .comparison import LayerNoise as LayerNoise
from .comparison import compare as compare
from .metrics import METRICS as METRICS
from .metrics import measure as measure
from .metrics import measure_with as measure_with
