# Slipway: `make run` trains and serves the tiny assistant, `make test` proves it. `make` alone lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin

help:  ## List these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

run: setup  ## Train, quantize and serve the `tiny` assistant (RECIPE=... for another)
	@./slipway run $(or $(RECIPE),tiny)

setup: .venv/installed  ## Look at the machine, make .venv, install what constraints.txt pins

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) infra/doctor.py --before-install
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^pip==' constraints.txt)" $(PIP_ARGS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --group host --group stages --group test $(PIP_ARGS)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . $(PIP_ARGS)
	@touch $@

test: setup  ## Run the tests (<= 15 minutes on 2 cores; a served model is left alone)
	$(BIN)/python -m pytest -m "not (slow or gpu or kill or stack or containers)"

test-slow: setup  ## Run the long proofs
	$(BIN)/python -m pytest -m "slow" --timeout 3600

test-kill: setup  ## Kill every stage in the middle of its work and compare what it makes then with an undisturbed run, bit for bit
	$(BIN)/python -m pytest -m "kill and not slow"

test-gpu: setup  ## Run what needs a CUDA device
	$(BIN)/python -m pytest -m "gpu"

test-stack: setup  ## Run deployments, monitoring and other engines on real servers (Prefect, MLflow, PostgreSQL, Prometheus, vLLM)
	$(BIN)/python -m pytest -m "stack and not slow"

test-containers: setup  ## Build every stage image and run the stages in containers (needs a Docker engine)
	$(BIN)/python -m pytest tests/containers --timeout 1800

check: setup  ## Lint, format, strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## Measure: ratios side by side in one run
	$(BIN)/python -m tests.bench

images: setup  ## Build the stage images (STAGES="sft dpo" for some, BASE_IMAGE=... on another base)
	@$(BIN)/python -m infra.images $(STAGES)

up: setup  ## Start the local Prefect and MLflow UIs over what `make run` wrote
	$(BIN)/python -m infra.local up

worker: setup  ## Register the deployments with the local Prefect and run what is triggered or scheduled there
	$(BIN)/python -m infra.worker

down:  ## Stop them
	$(BIN)/python -m infra.local down

clean:  ## Remove caches, logs and the virtual environment; the store and the runs stay
	rm -rf .venv .slipway/staging .slipway/cache .slipway/logs *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './.slipway/*' -prune -exec rm -rf {} +

.PHONY: help run setup test test-slow test-kill test-gpu test-stack test-containers check bench images up worker down clean
