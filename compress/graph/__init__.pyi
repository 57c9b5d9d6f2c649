from . import settle as settle
from .fold import fold_and_account as fold_and_account
