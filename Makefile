# What this project can do. `make up` and `make test` set up everything they need; PYTHON=… names the
# Python to do it with, when .venv is made.
.DEFAULT_GOAL := help
SHELL := bash -eu -o pipefail
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
SOURCES := manage.py platform accounts billing proxy tests bench
export PYTHONPATH := platform:.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# Checks of the code need no servers and no secrets of their own.
LINT_ENVIRONMENT := SECRET_KEY=only-for-reading-the-code-0123456789 DATABASE_URL= STATE_DIR=/nonexistent

.PHONY: help up test test-pages check lint format lock bench storm chaos test-billing test-clients test-cluster test-scale clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/ready ## Run Turnpike on this machine, servers included
	@$(BIN)/python manage.py up $(ARGS)

test: $(VENV)/ready-dev ## Run every test; T=path narrows them
	$(BIN)/python -m pytest -n auto -m "not alone" --durations=20 $(T)

test-pages: $(VENV)/ready-dev ## Every page in every theme, width and language, in a real browser
	$(BIN)/python -m pytest tests/pages -n 2 --timeout=480 $(ARGS)

check: lint test ## What CI runs

lint: $(VENV)/ready-dev ## Everything that reads the code without running it
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(LINT_ENVIRONMENT) $(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run --skip-checks
	POSTGRES_PASSWORD=x POSTGRES_OWNER_PASSWORD=x POSTGRES_APP_PASSWORD=x SECRET_KEY=x KEY_PEPPERS=x MASTER_KEYS=x METRICS_TOKEN=x PUBLIC_BASE_URL=https://example.com \
		$(BIN)/docker-compose -f docker-compose.yml config --quiet

format: $(VENV)/ready-dev ## Put the code into shape
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

lock: $(VENV)/ready-dev ## Write requirements*.txt anew from platform/lock
	@for name in requirements requirements-embedded requirements-dev; do \
		$(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --no-header \
			--no-emit-index-url platform/lock/$$name.in -o $$name.txt; \
	done

bench: $(VENV)/ready-dev ## Compare the data plane's cost with nginx's; ARGS=--json for programs
	$(BIN)/python -m bench $(ARGS)

storm: $(VENV)/ready-dev ## The long seeded fault storm; SEED=number replays one, SECONDS=300 is its length
	STORM_SEED=$${SEED:-$$RANDOM} STORM_SECONDS=$(or $(SECONDS),300) \
		CHAOS=full $(BIN)/python -m pytest tests/storm -n 0 --timeout=0 -s $(ARGS)
	$(BIN)/python -m pytest tests/faults -m alone -n 0

chaos: $(VENV)/ready-dev ## Three upstreams, one failing in each way in turn; make storm calls it too
	CHAOS=full $(BIN)/python -m pytest tests/storm/test_upstream_storm.py -n 0 --timeout=0 -s $(ARGS)

test-billing: $(VENV)/ready-dev ## The proofs of billing at full size: a year, and posts against closings
	ACCOUNTING=full $(BIN)/python -m pytest tests/accounting -n 2 --timeout=1800 $(ARGS)

test-clients: $(VENV)/ready-dev ## Other people's clients, in environments of their own
	$(BIN)/python -m pytest tests/clients -n 0 --timeout=900 $(ARGS)

test-cluster: $(VENV)/ready-dev ## Both planes on a Valkey Cluster of three primaries and replicas, which are killed
	$(BIN)/python -m pytest tests/cluster -n 0 --timeout=300 $(ARGS)

test-scale: $(VENV)/ready-dev ## Every page of both consoles over a million usage events: times, queries, plans
	$(BIN)/python -m pytest tests/scale -n 0 --timeout=600 -s $(ARGS)

clean: ## Remove what was built; var/ with its data stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis htmlcov *.egg-info

# Installed wheels only, each with its hash; a change of a lock installs anew. Our own code is compiled as
# pip compiles theirs: processes start in two thirds of the time, also where Python is told to write nothing.
$(VENV)/ready: requirements.txt requirements-embedded.txt
	rm -rf $(VENV)/ready $(VENV)/ready-dev
	@test -x $(BIN)/python || { python="$${PYTHON:-$$(python3 -I platform/turnpike/embedded/choose_python.py)}" && $$python -m venv $(VENV); }
	$(BIN)/pip install --quiet --require-hashes --only-binary :all: -r requirements.txt -r requirements-embedded.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q platform accounts billing proxy
	touch $@

$(VENV)/ready-dev: $(VENV)/ready requirements-dev.txt
	$(BIN)/pip install --quiet --require-hashes --only-binary :all: -r requirements-dev.txt
	touch $@
