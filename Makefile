# make demo   run the ready campaign on real input and show what it found
# make test   run the tests
# Both make .venv first, with everything in it; nothing else on the machine is touched.
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-fast lint format bench docs clean

PYTHON ?= python3.11
VENV := .venv
SHELL := /bin/bash
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo-workspace
# Processes that run tests side by side; 0: all in one.
WORKERS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# A BLAS that is told of another chip, or threads beyond the cores, only slow things down.
unexport OPENBLAS_CORETYPE OPENBLAS_L2_SIZE

help:
	@sed -n '1,3s/^# //p' Makefile; echo "also: venv test-fast lint format bench docs clean"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; set PYTHON=<a Python 3.11 or newer>"; exit 1; }
	@echo "making $(VENV) (about two minutes)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt pip
	$(PIP) install -c constraints.txt torch  # first: a later package must not bring another build of it
	$(PIP) install -c constraints.txt -e ".[dev]"
	touch $@

demo: venv
	@test -f $(DEMO)/matcompute.toml || $(BIN)/matcompute init $(DEMO)
	@$(BIN)/matcompute --workspace $(DEMO) campaign run workflows/campaigns/al-intermetallics.yaml
	@$(BIN)/matcompute --workspace $(DEMO) campaign report al-intermetallics
	@workflows/publish-demo.sh $(BIN)/matcompute $(DEMO) al-intermetallics
	@$(BIN)/matcompute --workspace $(DEMO) workspace stop >/dev/null  # leave no daemon behind

test: venv
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

test-fast: venv
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not kill" $(PYTEST_ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The peers of the kernels pin older packages than ours: they get an environment of their own.
.venv-peers/.installed: benchmarks/peers.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip --disable-pip-version-check -q install -r benchmarks/peers.txt
	touch $@

# Validators that we did not write want versions of their own, too; tests/publish finds them here.
.venv-validators/.installed: tests/publish/validators.txt
	test -x .venv-validators/bin/python || $(PYTHON) -m venv .venv-validators
	.venv-validators/bin/python -m pip --disable-pip-version-check -q install -r tests/publish/validators.txt
	touch $@

bench: venv .venv-peers/.installed
	@set -o pipefail; for file in benchmarks/[a-z]*.py; do echo "== $$file"; name=$$(basename $$file .py); \
	  $(BIN)/python $$file | tee $(VENV)/bench.out && tail -n 1 $(VENV)/bench.out > benchmarks/results/$$name.json || exit 1; done
	@$(BIN)/python benchmarks/_table.py

docs: venv
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	@test ! -f $(DEMO)/matcompute.toml || $(BIN)/matcompute --workspace $(DEMO) workspace stop || true
	rm -rf $(DEMO) docs/_build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
