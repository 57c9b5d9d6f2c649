from .run import run as run
from .store import Store as Store
