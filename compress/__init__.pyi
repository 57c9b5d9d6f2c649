from .codec import open as open
from .estimator import estimate as estimate
from .model import Model as Model
from .pipeline import Pipeline as Pipeline
from .pipeline import run as run
from .source import load as load
