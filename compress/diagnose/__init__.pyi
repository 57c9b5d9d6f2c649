from . import faithful as faithful
from . import samples as samples
