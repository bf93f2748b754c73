# What a newcomer needs: `make demo` and `make test`. Both make the environment first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-all lint types docs bench clean

help:
	@echo "make demo      run an example on the built-in sandbox and show the result"
	@echo "make test      run the test suite (under ten minutes on two cores)"
	@echo "make test-all  run the long proofs too"
	@echo "make lint      ruff: format and rules"
	@echo "make types     mypy, strict"
	@echo "make docs      build the documentation site into site/"
	@echo "make bench     run the benchmarks (loopback only; see benchmarks/README.md)"

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

demo: $(READY)
	$(BIN)/beatra-enrich run examples/tickets/config.yaml
	$(BIN)/python examples/show.py examples/tickets/out/tickets.parquet

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-all: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal --timeout 3600

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/python benchmarks/work.py

clean:
	rm -rf $(VENV) site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
