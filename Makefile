# make demo   installs into .venv if needed, then trains a small Portuguese model on this machine
# make test   format, lint, types, import contract and all tests (no network)
# make soak   the long tests that make test leaves out
#
# make install TORCH=auto|cpu|cuda|system   TORCH_INDEX=URL   PYTHON=python3.12
#   auto    a CUDA build where nvidia-smi answers, else a CPU build where the package index has one
#   system  use the PyTorch that PYTHON already has (the environment sees its packages)

PYTHON ?= python3
TORCH ?= auto
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --constraint constraints.txt
INDEX := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
ifeq ($(TORCH),auto)
BUILD := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
else
BUILD := $(TORCH)
endif
# The run's own environment: nothing here needs a network, and no one is told about it.
QUIET := RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1

.PHONY: demo test soak check format install system-packages clean

demo: $(STAMP)
	@$(QUIET) $(BIN)/mutirao run demo

test: $(STAMP) check
	$(QUIET) $(BIN)/python -m pytest -n 2

soak: $(STAMP)
	$(QUIET) $(BIN)/python -m pytest -m soak

check: $(STAMP)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(STAMP)

system-packages:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "make: mutirao needs Python 3.11 to 3.13; give another with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: this Python cannot make virtual environments; apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || \
	  { echo "make: the headers of this Python are missing; apt-get install python3-dev" >&2; exit 1; }
	@command -v g++ >/dev/null || \
	  { echo "make: a C++ compiler is missing; apt-get install g++" >&2; exit 1; }

$(STAMP): constraints.txt pyproject.toml | system-packages
	@case "$(BUILD)" in cpu|cuda|system) ;; *) echo "make: TORCH is auto, cpu, cuda or system, not $(TORCH)" >&2; exit 1;; esac
	@echo "Installing into $(VENV) (PyTorch: $(BUILD)); a few minutes and 2.5 GB"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(if $(filter system,$(BUILD)),--system-site-packages) $(VENV)
	@$(PIP) setuptools wheel hatchling editables ninja packaging py-cpuinfo hjson
ifeq ($(BUILD),system)
	@$(BIN)/python -c 'import torch' || { echo "make: TORCH=system, but $(PYTHON) has no PyTorch" >&2; exit 1; }
else ifeq ($(BUILD),cpu)
	@$(PIP) $(INDEX) "torch==$(TORCH_VERSION)+cpu" 2>/dev/null || \
	  { echo "  no CPU-only PyTorch at this package index: taking the default build (see README, GPU install)"; \
	    $(PIP) $(INDEX) "torch==$(TORCH_VERSION)"; }
else
	@$(PIP) $(INDEX) "torch==$(TORCH_VERSION)"
endif
	@sed -n '/^deepspeed==/p' constraints.txt | $(PIP) --no-build-isolation -r /dev/stdin
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@echo "Building the communication extension of DeepSpeed and the text kernels"
	@$(BIN)/python -m train_jobs.build_extensions
	@$(BIN)/python -m data_jobs.compile_kernels
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist
