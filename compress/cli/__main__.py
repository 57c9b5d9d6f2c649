"""The command line, as ``python -m compress.cli``."""

from compress.cli.program import main

main()
