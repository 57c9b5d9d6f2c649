from .codec import open as open
from .engine import run as run
from .estimator import estimate as estimate
from .governor import Governor as Governor
from .model import Model as Model
from .passes.pipeline import Pipeline as Pipeline
from .source import load as load
from .version import __version__ as __version__
