from .weight_only import store_int8_weights as store_int8_weights
