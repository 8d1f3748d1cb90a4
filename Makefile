# `make help` lists the targets. BIN says where the programs are: `make unit BIN=/opt/venv/bin`.
BIN ?= .venv/bin

.DEFAULT_GOAL := help
.PHONY: help venv lint format types layers unit test slow soak-types soak-ledger bench ci

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## Create .venv with everything that development needs.
	python3 -m venv .venv
	.venv/bin/pip install -q -e '.[local,dev]'

lint: ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: ## Format the code and fix what ruff can fix.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: ## Check types (mypy, strict, tests included).
	$(BIN)/mypy

layers: ## Check that imports point down only.
	$(BIN)/lint-imports --no-logo

unit: ## Run the unit tests: seconds, no process is started.
	$(BIN)/pytest tests/unit

test: ## Run the default tests on real servers: minutes.
	$(BIN)/pytest

slow: ## Run the second tier: kills, outages, the benchmark's gate.
	$(BIN)/pytest -m slow

soak-types: ## Write every column of every dataset as 33 other types: minutes.
	$(BIN)/pytest -m soak tests/integration/postgres/test_altered_types.py

soak-ledger: ## Cause 200 faults of servers, processes and tables on each broker: half an hour.
	$(BIN)/pytest -m soak -n 0 -s tests/acceptance/test_ledger.py

bench: ## Run the benchmark, on a machine that does nothing else.
	$(BIN)/pip install -q -e '.[local,dev,bench]'
	$(BIN)/python -m benchmarks

ci: ## Run everything that must pass before a change lands.
	.ci/run
