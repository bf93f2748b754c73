# What a newcomer needs: `make demo` and `make test`. Both make the environment first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
FLOORS := $(VENV)-floors
PACKED := $(VENV)-dist

.PHONY: help demo test test-floors test-all lint types docs bench dist clean

help:
	@echo "make demo      run an example on the built-in sandbox and show the result"
	@echo "make test      run the test suite (under ten minutes on two cores)"
	@echo "make test-floors  the same on the lowest versions of what the program needs; PYTHON=python3.12 names another Python"
	@echo "make test-all  run the long proofs too"
	@echo "make lint      ruff: format and rules"
	@echo "make types     mypy, strict"
	@echo "make docs      build the documentation site into site/"
	@echo "make dist      build wheel and sdist into dist/, install each in an environment of its own and run a job with it"
	@echo "make bench     run the benchmarks (loopback only; see benchmarks/README.md)"

# The program alone: what a demo needs.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "--- making an environment in $(VENV)/"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "--- installing beatra-enrich and what it needs (about 430 MB; a minute)"
	@$(BIN)/python -m pip install --progress-bar off --editable . | grep -v "already satisfied" | cut -c 1-100
	@touch $@

# And what its tests, its checks and its documentation need.
$(READY): $(INSTALLED)
	@echo "--- installing what the tests need (about 1.3 GB more; two minutes)"
	@$(BIN)/python -m pip install --progress-bar off --editable . --group dev | grep -v "already satisfied" | cut -c 1-100
	@touch $@

demo: $(INSTALLED)
	$(BIN)/beatra-enrich run examples/tickets/config.yaml
	$(BIN)/beatra-enrich show examples/tickets/config.yaml -n 5

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

# The declared lower bounds are true: the suite on the lowest version of each direct dependency.
$(FLOORS)/.ready: pyproject.toml tools/floors.py
	$(PYTHON) -m venv --clear $(FLOORS)
	$(FLOORS)/bin/python -m pip install --quiet --upgrade pip
	$(FLOORS)/bin/python -m tools.floors > $(FLOORS)/constraints.txt
	$(FLOORS)/bin/python -m pip install --quiet --editable . --group test-floors --constraint $(FLOORS)/constraints.txt
	touch $@

test-floors: $(FLOORS)/.ready
	@$(FLOORS)/bin/python -c 'import sys; print("Python", sys.version.split()[0])'; paste -sd " " $(FLOORS)/constraints.txt
	$(FLOORS)/bin/python -m pytest -m "not slow" -n 2 --dist worksteal

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

dist: $(READY)
	rm -rf dist
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build --outdir dist .
	for file in dist/*; do \
		rm -rf $(PACKED) && $(PYTHON) -m venv $(PACKED) && $(PACKED)/bin/python -m pip install --quiet "$$file" && \
		$(PACKED)/bin/beatra-enrich --version && $(PACKED)/bin/beatra-enrich init $(PACKED)/demo && \
		$(PACKED)/bin/beatra-enrich run $(PACKED)/demo/config.yaml || exit 1; \
	done

clean:
	rm -rf $(VENV) $(FLOORS) $(PACKED) site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
