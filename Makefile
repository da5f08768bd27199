# Targets set up what they need: in a fresh clone `make test` is enough. `make help` lists them.

PYTHON ?= python3
SEED ?= 0
PRESET ?= tiny
OUT ?= runs/kv-$(PRESET)$(if $(filter-out 0,$(SEED)),-seed$(SEED))
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup lint types format test test-slow extras kv smoke wheel-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv and install calmctl into it, with the versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

lint: $(INSTALLED) ## check style
	$(BIN)/ruff check .

types: $(INSTALLED) ## check types
	$(BIN)/mypy calmctl data_builders evals

format: $(INSTALLED) ## format the code
	$(BIN)/ruff format .

test: $(INSTALLED) ## run the tests, on all cores; ARGS="-k name" goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadscope $(ARGS)

test-slow: $(INSTALLED) ## run the tests that take longer, which `make test` leaves out
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m slow $(ARGS)

extras: $(INSTALLED) ## also install lm-eval and bitsandbytes (27 packages, 451 MB), so that their tests run
	$(BIN)/python -m pip install -c constraints.txt -e '.[lm-eval,quantized]'

kv: $(INSTALLED) ## reproduce the key-value section of the paper (PRESET=tiny SEED=0 OUT=runs/kv-tiny)
	$(BIN)/calmctl reproduce kv --preset $(PRESET) --seed $(SEED) --out $(OUT)

smoke: $(INSTALLED) ## run the whole key-value experiment at toy size, from scratch
	rm -rf runs/smoke
	$(BIN)/calmctl reproduce kv --preset smoke --seed $(SEED) --out runs/smoke

wheel-test: $(INSTALLED) ## build the wheel, install it elsewhere and use it there
	.ci/wheel-test $(BIN)/python

clean: ## remove builds and caches; .venv and runs stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find calmctl conf data_builders evals tests -name __pycache__ -prune -exec rm -rf {} +
