# `make help` lists the targets. BIN says where the programs are: `make unit BIN=/opt/venv/bin`.
BIN ?= .venv/bin

.DEFAULT_GOAL := help
.PHONY: help venv lint format types layers unit test slow soak-types soak-ledger soak-hosted soak-hostile soak-incidents bench ci

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## Create .venv with everything that development needs.
	python3 -m venv .venv
	.venv/bin/pip install -q -e '.[local,dev]'

.PHONY: lock audit release
COMPILE = CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile -q --no-config --generate-hashes --allow-unsafe \
	--strip-extras --no-annotate --no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	$(UPGRADE)

lock: ## Renew the lock files (Python 3.11 on Linux, some minutes); UPGRADE=--upgrade takes the newest versions.
	$(COMPILE) --extra local --extra dev --build-deps-for editable --build-deps-for wheel \
		-o .ci/requirements.lock pyproject.toml
	$(COMPILE) --extra traces -c .ci/requirements.lock -o deploy/requirements.lock pyproject.toml
	$(COMPILE) -c .ci/requirements.lock --only-build-deps --build-deps-for wheel -o deploy/build.lock pyproject.toml

audit: ## Look for known vulnerabilities of the locked versions; status 3 if no database can be reached.
	$(BIN)/python .ci/audit.py .ci/requirements.lock deploy/*.lock

release: ## Build into dist/ what a release publishes: wheel, source archive, list of components (SBOM).
	BIN=$(BIN) .ci/release

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
	$(BIN)/pytest -m slow -n 3

soak-types: ## Write every column of every dataset as 33 other types: minutes.
	$(BIN)/pytest -m soak tests/integration/postgres/test_altered_types.py

soak-ledger: ## Cause 200 faults of servers, processes and tables on each broker: an hour.
	$(BIN)/pytest -m soak -n 0 -s tests/acceptance/test_ledger.py -k whatever_happens

soak-hosted: ## Fail over under load, restart brokers, deploy another version; count what each process logs: half an hour.
	$(BIN)/pytest -m "soak or slow" -n 0 -s tests/acceptance/test_failovers.py
	$(BIN)/pytest -m soak -n 0 -s tests/acceptance/test_ledger.py -k whatever_a_host

soak-hostile: ## Send 20,000 hostile messages between as many good ones on each broker, and count: minutes. HOSTILE_SEED repeats a run.
	$(BIN)/pytest -m soak -n 0 -s tests/acceptance/test_hostile.py

soak-incidents: ## Let each incident last ten minutes; count what each process logs, and when each is named and over: two hours.
	$(BIN)/pytest -m soak -n 0 -s tests/acceptance/test_incidents.py

bench: ## Run the benchmark, on a machine that does nothing else.
	$(BIN)/pip install -q -e '.[local,dev,bench]'
	$(BIN)/python -m benchmarks

ci: ## Run everything that must pass before a change lands.
	.ci/run
