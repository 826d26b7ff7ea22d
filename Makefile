# Two commands set up everything on a bare machine with Python (3.10 or newer) and make:
#   make demo   built-in scans: train, predict, score, report
#   make test   the test suite (a file's tests stay in one process: what they share is made once)
# Further: make slow (tests that take minutes), make check (format, lint, types, layers), make docs, make clean.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: demo test slow check docs clean

demo: $(VENV)/.run
	$(BIN)/attentus demo -o demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadfile

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto -m slow

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py --check
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) demo site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Attentus needs Python 3.10 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11") if sys.version_info < (3, 10) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[tensorboard,dicom]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) -e '.[dev]'
	@touch $@
