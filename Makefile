# Verbs of the repository. `make` alone prints them; CI calls the same ones.
PYTHON ?= python3
PORT ?= 8002
DATA ?= .data
BIN := .venv/bin

# Every process of every cluster would compile all that it imports again: half of what its start costs.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup up down demo test check format test-unit test-contract test-integration test-e2e test-clients clients prometheus dashboards-check bench chaos scale-demo golden docs clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install everything into .venv; quick when nothing changed
	@PYTHON="$(PYTHON)" sh scripts/setup.sh

up: setup ## run the whole cluster here, in the foreground (PORT=8002, DATA=.data)
	@exec $(BIN)/kitemesh dev --port "$(PORT)" --data "$(DATA)"

down: ## stop what `make up` started
	@if [ -x $(BIN)/kitemesh ]; then $(BIN)/kitemesh down --data "$(DATA)"; else echo "nothing is installed, so nothing runs"; fi

demo: setup ## kill a gateway and a model-runner under a stream and watch it go on; half a minute, touches no other cluster
	@exec $(BIN)/kitemesh demo

test: setup ## lint, types, imports and every test but chaos, bench and the clients of Node.js 22
	@$(MAKE) --no-print-directory -j3 --output-sync=target check clients prometheus
	@$(BIN)/pytest -m "not chaos and not bench and not node22"

check: setup ## lint, format, types, imports, lock file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/uv lock --check

format: setup ## format the code and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-unit: setup ## the tests without a server
	@$(BIN)/pytest tests/unit

test-contract: setup prometheus ## released messages, generated documents, manifests
	@$(BIN)/pytest tests/contract

test-integration: setup ## adapters on a real nats-server and mongod
	@$(BIN)/pytest tests/integration

test-e2e: setup prometheus ## real processes, real clients
	@$(BIN)/pytest tests/e2e -m "not chaos and not bench"

test-clients: setup ## every client that is known to work, the ones of Node.js 22, too; prints a table
	@sh scripts/setup_clients.sh node node22
	@$(BIN)/pytest tests/clients

clients: setup
	@sh scripts/setup_clients.sh node

prometheus: setup
	@sh scripts/setup_prometheus.sh

dashboards-check: setup prometheus ## have load and real faults, and see that every panel has data and every alert fires; six minutes
	@PYTHONPATH=tests $(BIN)/python -m observed

bench: setup ## measure this machine; prints a table, writes JSON to bench-results/
	@PYTHONPATH=tests $(BIN)/python -m bench

chaos: setup ## break services, NATS, MongoDB, disks and the network under load (FAULTS=, SEED=, ONLY=turns|nats|…)
	@PYTHONPATH=tests $(BIN)/python -m chaos $(if $(FAULTS),--faults "$(FAULTS)") $(if $(SEED),--seed "$(SEED)") $(if $(ONLY),--only "$(ONLY)")

scale-demo: setup ## scale each service of a real cluster by itself, and have replicas leave; four minutes, writes docs/scaling.md
	@env -u VIRTUAL_ENV -u UV_PROJECT_ENVIRONMENT $(BIN)/uv sync --quiet --frozen --inexact --group plots --python $(BIN)/python
	@PYTHONPATH=tests $(BIN)/python -m scale

golden: setup ## keep the bytes of a new example message (NAME=turn.start.with_field)
	@PYTHONPATH=tests $(BIN)/python scripts/write_golden.py "$(NAME)"

docs: setup ## write everything again that follows from code: documents, dashboards, rules
	@PYTHONPATH=tests $(BIN)/python scripts/generate_docs.py

clean: ## remove .venv and caches; the data of `make up` stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist tests/clients/*/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
