# Two commands on a fresh machine: `make demo` and `make test`. Each makes .venv first when it is missing.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Tests run in so many processes; what shares an engine host or a server runs in one (tests/support/workers.py).
WORKERS ?= 2
SPREAD := -n $(WORKERS) --dist loadscope --no-loadscope-reorder

# Nothing outside the checkout is changed, caches included.
export VLLM_CACHE_ROOT ?= $(CURDIR)/.cache/vllm
export TORCHINDUCTOR_CACHE_DIR ?= $(CURDIR)/.cache/inductor
export VHSERVE_TEST_CACHE ?= $(CURDIR)/.cache/tests
export MPLCONFIGDIR ?= $(CURDIR)/.cache/matplotlib

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-deploy lint bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml constraints-cpu.txt scripts/install.sh
	scripts/install.sh $(PYTHON)

demo: .venv/installed  ## calibrate, prune, serve and compare the demo model (report in demo-out/)
	$(BIN)/vhserve demo --out demo-out

test: .venv/installed lint  ## linters, types and the tests
	$(PYTEST) $(SPREAD) -m 'not long'

test-long: .venv/installed  ## the tests that take minutes each
	$(PYTEST) $(SPREAD) -m long

test-deploy: .venv/installed  ## installs the tools that deploy/ is checked with, and checks all of it (docs/deploy.md)
	scripts/install-deploy-tools.sh
	$(PYTEST) tests/deploy

# --no-cache: ruff's cache outlives a new package of ours, and then hides unsorted imports.
lint: .venv/installed  ## ruff and mypy
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy

bench: .venv/installed  ## what a calibration costs, what an empty plan costs
	$(BIN)/python -m benchmarks.calibration_cost
	$(BIN)/python -m benchmarks.empty_plan

clean:  ## remove the environment and what the demo wrote
	rm -rf .venv .cache demo-out
