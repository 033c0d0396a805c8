# `make help` lists what there is. Everything below runs from the project's own environment in .venv.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
STACK ?=
KIT := .venv/bin/kit
PIP_INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.ready engine ## environment in .venv, every package by hash; a container engine

.venv/.ready: pyproject.toml lockfiles/python/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: Python 3.10 or newer is needed; set PYTHON=python3.11" >&2; exit 3; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "error: Python's venv is missing: sudo apt-get install python3-venv" >&2; exit 3; }
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --require-hashes --only-binary :all: --requirement lockfiles/python/dev.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@.venv/bin/python -m compileall -q kit
	@touch $@

.PHONY: engine
engine: .venv/.ready
	@.venv/bin/python -m kit.commands.install_engine

.PHONY: oracle
oracle: .venv/.ready ## PyTorch, the peer of the reference backend's numbers
	$(PIP_INSTALL) --no-deps --require-hashes --requirement lockfiles/python/torch.txt

.PHONY: rehearsal
rehearsal: setup ## the whole pipeline on any machine, then once more offline, compared
	@.venv/bin/python -m kit.rehearsal

.PHONY: release_build
release_build: ## fetch and build the image of STACK (by default what suits this host)
	@$(MAKE) --no-print-directory --silent setup
	@stack=$$(.venv/bin/python -m kit.commands.stacks $(STACK)) && \
	  $(KIT) fetch $$stack && $(KIT) build $$stack

.PHONY: verify-compat
verify-compat: setup ## check what ARGS names, e.g. ARGS="--stack rehearsal --release 0.9.0"
	@$(KIT) verify-compat $(ARGS)

.PHONY: test
test: setup ## all tests that this host can run (after `make oracle` those against PyTorch too)
	.venv/bin/python -m pytest $(PYTEST_ARGS)

.PHONY: unit
unit: .venv/.ready ## the tests that need neither network nor engine
	.venv/bin/python -m pytest tests/unit $(PYTEST_ARGS)

.PHONY: lint
lint: .venv/.ready ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

.PHONY: bench
bench: setup ## times, as ratios against a peer in the same run
	.venv/bin/python -m tests.bench

.PHONY: tables
tables: .venv/.ready ## refresh kit/data from the Python index, e.g. ARGS="--check --triton-table FILE"
	@.venv/bin/python -m kit.data.refresh $(ARGS)

.PHONY: relock
relock: .venv/.ready ## resolve the environment of .venv again (needs uv)
	uv pip compile pyproject.toml --group dev --group oracle --universal --python-version 3.10 \
	  --generate-hashes --no-header --no-emit-index-url --quiet --upgrade \
	  --output-file lockfiles/python/dev.txt

.PHONY: clean
clean: ## remove what was built here; store and images stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
