# Every target installs what it needs first: `make search` and `make test` work on a fresh clone.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV = $(or $(shell command -v uv),.venv-tools/bin/uv)
# Two processes, each file in one of them; in alphabetical order, which has the long files of integration/ first.
IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder
export UV_PYTHON_DOWNLOADS := never
# Python compiles a module once and keeps it: where that is switched off, each process of a run compiles torch anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup search test test-fast lint types bench study lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 to 3.13 or run make PYTHON=..."; exit 1; }
	@PYTHON=$(PYTHON) VENV=$(VENV) bash scripts/setup.sh
	@touch $@

setup: $(STAMP)  ## install everything into .venv

search: $(STAMP)  ## a complete search on the built-in data (minutes on 2 cores)
	$(BIN)/autoseg search experiment=builtin $(ARGS)

test: $(STAMP)  ## all tests
	$(BIN)/pytest $(IN_TWO) $(ARGS)

test-fast: $(STAMP)  ## unit tests only, 2 minutes
	$(BIN)/pytest $(IN_TWO) -m "not slow" $(ARGS)

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## benchmarks, minutes
	$(BIN)/python -m benchmarks.run $(ARGS)

study: $(STAMP)  ## the studies behind the defaults, hours: make study DATA=DIR WEIGHTS=FILE; minutes: make study ARGS=--tiny
	$(BIN)/python -m benchmarks.study $(DATA) $(WEIGHTS) $(ARGS)

lock: $(STAMP)  ## pin every dependency anew (no registry host is written)
	$(UV) pip compile -q --universal --no-emit-index-url --no-header --no-annotate --extra dev --python-version 3.11 pyproject.toml -o requirements.lock

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
