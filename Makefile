# `make help` lists what there is. Everything below runs from the project's own environment in .venv.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
KIT := .venv/bin/kit
PIP_INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check

# Which image: STACK, or RELEASE as a short form of it; the rest is named as in TensorRT-LLM's own
# docker/Makefile. By default release_build makes what suits this host.
RELEASE ?=
STACK ?= $(if $(RELEASE),trtllm-$(RELEASE))
TRITON ?=
# What of the stack is built otherwise; what is not given is as the lock has it.
CUDA_ARCHS ?=
BUILD_WHEEL_ARGS ?=
JOBS ?=
# How a container is started. GPU_OPTS is by default every GPU, as the engine at hand spells it.
LOCAL_USER ?= 0
SOURCE_DIR ?=
CODE_DIR ?= /code/tensorrt_llm
RUN_CMD ?=
CONTAINER_NAME = tensorrt_llm
DOCKER_RUN_OPTS ?= --rm -it --ipc=host --ulimit memlock=-1 --ulimit stack=67108864 --tmpfs /tmp:exec
DOCKER_RUN_ARGS ?=
BUILD_FLAGS = $(if $(CUDA_ARCHS),--arg 'CUDA_ARCHS=$(CUDA_ARCHS)') \
  $(if $(BUILD_WHEEL_ARGS),--arg 'BUILD_WHEEL_ARGS=$(BUILD_WHEEL_ARGS)') $(if $(JOBS),--jobs $(JOBS))
# The caller's own number, also where a rootless engine would map it to another.
AS_USER = $$([ $$1 = docker ] || [ $$(id -u) = 0 ] || echo --userns=keep-id) --user "$$(id -u):$$(id -g)" \
  --env HOME=/tmp --env "USER=$$(id -un)"
CHOSEN = stack=$$(.venv/bin/python -m kit.commands.stacks $(STACK))

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
oracle: .venv/.ready ## PyTorch and ROUGE, the peers of the reference backend's numbers
	$(PIP_INSTALL) --no-deps --require-hashes --requirement lockfiles/python/torch.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --require-hashes \
	  --requirement lockfiles/python/rouge.txt

.PHONY: rehearsal
rehearsal: setup ## the whole pipeline on any machine, then once more offline, compared
	@.venv/bin/python -m kit.rehearsal

.PHONY: airgap-test
airgap-test: setup ## a delivery crosses the air gap and is made again; report in build/airgap
	KIT_AIRGAP_FOLDER=build/airgap \
	  .venv/bin/python -m pytest -s tests/integration/test_airgap.py $(PYTEST_ARGS)

.PHONY: release_build
release_build: ## fetch and build the image of STACK (or RELEASE=0.16.0; CUDA_ARCHS="80-real;90-real")
	@$(MAKE) --no-print-directory --silent setup
	@$(CHOSEN) && $(KIT) fetch $$stack && $(KIT) build $$stack $(strip $(BUILD_FLAGS))

.PHONY: devel_build
devel_build: ## only the stage with the tools: what the wheel is built in
	@$(MAKE) --no-print-directory --silent setup
	@$(CHOSEN) && $(KIT) fetch $$stack && $(KIT) build $$stack --target devel

.PHONY: wheel_build
wheel_build: ## the wheel alone, left in build/ with headers, benchmarks and SHA256SUMS
	@$(MAKE) --no-print-directory --silent setup
	@$(CHOSEN) && $(KIT) fetch $$stack && \
	  image=$$($(KIT) build $$stack --target wheel $(strip $(BUILD_FLAGS))) && \
	  .venv/bin/python -m kit.commands.wheels $$stack $$image build

.PHONY: triton_build
triton_build: ## the Triton server of TRITON=24.12 (or STACK=triton-24.12)
	@$(MAKE) --no-print-directory --silent setup
	@stack=$(if $(TRITON),triton-$(TRITON),$(STACK)) && \
	  : $${stack:?say TRITON=24.12 or STACK=triton-24.12} && \
	  $(KIT) fetch $$stack && $(KIT) build $$stack

.PHONY: release_run devel_run
release_run: ## a shell in that image (GPU_OPTS, DOCKER_RUN_ARGS, RUN_CMD, LOCAL_USER=1)
devel_run: ## a shell in the stage with the tools, with SOURCE_DIR=… at /code/tensorrt_llm
devel_run: TARGET := --target devel
# Built where it is not there; `kit build` says in which engine the image is, and by which name.
release_run devel_run:
	@$(MAKE) --no-print-directory --silent setup
	@$(CHOSEN) && \
	  set -- $$($(KIT) build $$stack $(or $(TARGET),$(strip $(BUILD_FLAGS))) --json | \
	    .venv/bin/python -m kit.commands.built) && [ $$# = 2 ] && \
	  case $$1 in podman) gpus="--device nvidia.com/gpu=all" ;; *) gpus=--gpus=all ;; esac && \
	  $$1 run $(DOCKER_RUN_OPTS) $(if $(filter undefined,$(origin GPU_OPTS)),$$gpus,$(GPU_OPTS)) \
	    $(if $(filter 1,$(LOCAL_USER)),$(AS_USER)) \
	    $(if $(SOURCE_DIR),--volume '$(abspath $(SOURCE_DIR)):$(CODE_DIR)' --workdir $(CODE_DIR)) \
	    --hostname "$$(hostname)-$(@:_run=)" --name "$(CONTAINER_NAME)-$(@:_run=)-$$(id -un)" \
	    $(DOCKER_RUN_ARGS) $$2 $(RUN_CMD)

.PHONY: lockfiles
lockfiles: .venv/.ready ## write the stacks of all releases from kit/data again, e.g. ARGS=--check
	@.venv/bin/python -m kit.stacks $(ARGS)

.PHONY: verify-compat
verify-compat: setup ## check what ARGS names, e.g. ARGS="--stack rehearsal --release 0.9.0"
	@$(KIT) verify-compat $(ARGS)

# Each process takes 600 MB and builds images of its own: more of them would not be quicker.
PROCESSES = --numprocesses auto --maxprocesses 4

.PHONY: test
test: setup ## all tests that this host can run (after `make oracle` those against PyTorch too)
	.venv/bin/python -m pytest $(PROCESSES) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: unit
unit: .venv/.ready ## the tests that need neither network nor engine
	.venv/bin/python -m pytest $(PROCESSES) --dist loadscope --no-loadscope-reorder tests/unit $(PYTEST_ARGS)

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
	.venv/bin/python -m kit.bundles.wheels

.PHONY: clean
clean: ## remove what was built here; store and images stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
