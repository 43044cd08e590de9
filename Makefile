# `make demo` and `make test` install what they need. Requires Python 3.11+ and make.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done)
VENV ?= .venv
RUN := $(VENV)/bin
TEST_TOOLS := blockbuster hypothesis pytest pytest-asyncio pytest-timeout

.PHONY: demo test test-all torture test-lowest lowest lint bench clean

demo: $(VENV)/.demo
	$(RUN)/python examples/demo.py demo

# What a change must pass, in eight minutes on two cores; `test-all` adds what takes longer, `torture` included.
# Twice as many workers as cores: a third of the time tests wait. One worker runs a file: its tests share what takes seconds.
WORKERS := $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) * 2 )))
PYTEST := $(RUN)/python -m pytest -q -rs -n $(WORKERS) --dist loadfile

# Tests start hundreds of processes, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

test: $(VENV)/.dev
	$(PYTEST) --cov

test-all: $(VENV)/.dev
	$(PYTEST) -m ""

torture: $(VENV)/.dev
	$(PYTEST) -m "" tests/torture

# The main jobs with the lowest versions that pyproject.toml declares: of the core alone, then of all extras.
test-lowest:
	$(MAKE) VENV=$(VENV)-lowest-core EXTRAS= lowest
	$(MAKE) VENV=$(VENV)-lowest EXTRAS='[tiler,stac,geoparquet,pmtiles,tms,vector,wmts,dask]' lowest

lowest: pyproject.toml | $(VENV)/bin/python
	$(RUN)/python -m pip install --quiet --disable-pip-version-check uv
	$(RUN)/python -m uv pip install --quiet --python $(RUN)/python --resolution lowest-direct -e '.$(EXTRAS)'
	$(RUN)/python -m uv pip install --quiet --python $(RUN)/python $(TEST_TOOLS)
	$(RUN)/python -m pytest -q -rs -W default -m 'slow or not slow' tests/test_main_jobs.py

lint: $(VENV)/.dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/python -m tests.voice

bench: $(VENV)/.bench
	$(RUN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-lowest-core demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11+ not found: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tiler]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tiler,stac,geoparquet,pmtiles,tms,vector,wmts,dask,cloud,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tiler,bench]'
	@touch $@ $(VENV)/.demo
