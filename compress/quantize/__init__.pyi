from .floats import compute_in_float16 as compute_in_float16
from .floats import store_float_weights as store_float_weights
from .palettes import store_palettes as store_palettes
from .plans import Precision as Precision
from .rate import store_coded_weights as store_coded_weights
from .weight_only import store_int8_weights as store_int8_weights
from .weight_only import store_integer_weights as store_integer_weights
