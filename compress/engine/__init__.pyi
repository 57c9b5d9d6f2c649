from . import log as log
from . import work as work
from .run import run as run
from .store import Store as Store
