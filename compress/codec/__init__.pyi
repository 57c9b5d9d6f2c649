from .container import Index as Index
from .container import coded_bytes as coded_bytes
from .container import is_packed as is_packed
from .packing import pack as pack
from .packing import unpack as unpack
from .packing import unpacked as unpacked
from .runtime import open as open
