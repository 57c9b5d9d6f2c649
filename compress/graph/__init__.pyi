from . import settle as settle
from . import stored as stored
from .account import coverage as coverage
from .account import is_same as is_same
from .account import left_alone as left_alone
from .account import names as names
from .fold import fold_and_account as fold_and_account
