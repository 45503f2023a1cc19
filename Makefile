# Each target sets up everything that it needs. A fresh machine needs only make and a Python 3.10-3.13.
#   make test PYTHON=python3.12 VENV=.venv-3.12     another Python, in an environment of its own
#   make test ARGS="-k masking -x"                  a part of the tests

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Container images often set this variable. Hundreds of processes import the same modules, and
# compiling them each time would take half of the time of all tests.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?=
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
LOCK := requirements/lock.txt
ENVIRONMENTS := $(wildcard requirements/matrix/*.in requirements/clients/*.in)
COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile $(ARGS) --quiet \
  --universal --python-version 3.10 --generate-hashes --no-strip-extras \
  --no-emit-index-url --no-emit-find-links --no-annotate
# The settings of pip and of uv (index, proxy, certificates) are left as they are.
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV := $(BIN)/uv pip
INTO := --quiet --python $(BIN)/python

.PHONY: help demo unit test test-load test-browser test-matrix test-smoke test-clients docs check bench lock clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: $(VENV)/.installed ## a real Prefect deployment runs a real ZenML pipeline (ARGS=--keep leaves it up)
	@$(BIN)/python -m demo.run $(ARGS)

unit: $(VENV)/.installed ## the tests that need no real server, in about a minute
	@$(BIN)/python -m pytest -m "not (server or process or load or browser or matrix or clients)" \
	  $(or $(strip $(ARGS)),--numprocesses 4 --dist worksteal)

test: $(VENV)/.installed ## all tests, and enough coverage (with ARGS: only these tests, any coverage)
	@$(BIN)/python -m pytest $(if $(strip $(ARGS)),$(ARGS),--cov --numprocesses 4 --dist worksteal)

test-load: $(VENV)/.installed ## the long tests: hundreds of processes, and whether anything is left behind
	@$(BIN)/python -m pytest -m load $(ARGS)

test-browser: $(VENV)/.installed ## the tests in a real browser (needs Debian's chromium and chromium-driver)
	@$(BIN)/python -m pytest -m browser $(ARGS)

test-matrix: $(VENV)/.installed ## the tests with other versions of Prefect, ZenML and Python, each installed
	@$(BIN)/python -m pytest -m matrix $(ARGS)

test-smoke: $(VENV)/.installed ## the part of test-matrix with one Python
	@$(BIN)/python -m pytest -m matrix -k "not pair" $(ARGS)

test-clients: $(VENV)/.installed ## the tests with real clients, each in its own environment
	@$(BIN)/python -m pytest -m clients $(ARGS)

docs: $(VENV)/.installed ## write the generated parts: docs/failures.md, docs/versions.md, tables of fields, stubs
	@MLAUTH_WRITE_DOCS=1 $(BIN)/python -m pytest tests/faults/test_document.py tests/versions/test_page.py tests/prefect_mlauth/test_forms.py

check: $(VENV)/.installed ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

bench: $(VENV)/.installed ## measure the time of an activation, and compare it with other ways
	@$(BIN)/python -m benchmarks.activation $(ARGS)
	@$(BIN)/python -m benchmarks.azurekv $(ARGS)

lock: $(VENV)/.uv ## write requirements/ again (ARGS=--upgrade takes the newest versions)
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) pyproject.toml --all-extras --group dev -o $(LOCK)
	@for pins in $(ENVIRONMENTS:.in=); do echo $$pins; $(COMPILE) pyproject.toml $$pins.in -o $$pins.txt; done
	@if grep -nE '://|^-|@' requirements/uv.txt $(LOCK) $(ENVIRONMENTS:.in=.txt); then echo 'an address or an option got in' >&2; exit 1; fi

clean: ## remove the files that make and the tests made
	rm -rf $(VENV) .venv-* build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# The first Python with a right version and a working venv module makes the virtual environment.
$(VENV)/.made:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10); do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; then \
	    echo "$(VENV): made with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV); touch $@; exit 0; \
	  fi; \
	done; \
	echo 'make needs Python 3.10 to 3.13 with its venv module (name one: make PYTHON=/path/to/python3); none works among: $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10)' >&2; exit 1

# uv needs seconds where pip needs minutes. pip installs uv, and checks its hash.
$(VENV)/.uv: requirements/uv.txt | $(VENV)/.made
	@$(PIP) install -qq --no-deps --require-hashes -r requirements/uv.txt
	@touch $@

# This installs the packages of the lock and no others, and checks the hash of each file.
$(VENV)/.locked: $(LOCK) $(VENV)/.uv
	@echo "$(VENV): installing the pinned packages, once"
	@$(UV) install $(INTO) --no-deps --require-hashes -r $(LOCK)
	@touch $@

# This installs the project itself, editable, with the pinned backend, and checks that the lock fits.
$(VENV)/.installed: pyproject.toml $(VENV)/.locked
	@$(UV) install $(INTO) --no-deps --no-build-isolation --editable .
	@$(UV) check $(INTO) || { echo 'pyproject.toml and $(LOCK) do not fit: run make lock' >&2; exit 1; }
	@touch $@
