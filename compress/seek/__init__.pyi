from .frontier import Frontier as Frontier
from .frontier import Point as Point
from .search import find as find
from .search import search as search
