# Everything a machine with Python, make and a C compiler needs: each target sets up what it uses, in .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
# Without compiled bytecode every process would compile its imports again, which takes longer than most of its work.
unexport PYTHONDONTWRITEBYTECODE
# pip trusts the certificates of the machine, uv its own: a company's own authority is only among the former. The second
# name is that of releases before 0.10.
export UV_SYSTEM_CERTS := 1
export UV_NATIVE_TLS := 1
BIN := .venv/bin
READY := .venv/.ready
WORKERS ?= 2
HISTORIES ?= 5
PORT ?= 3000

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.lock pyproject.toml platform/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	@echo "[1/3] making .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.8"
	@echo "[2/3] installing the locked packages (about a minute)"
	@$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --compile-bytecode -r requirements.lock
	@echo "[3/3] installing the platform"
	@$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --editable . --editable platform
	@touch $(READY)

setup: $(READY) ## make the environment

demo: $(READY) ## play two weeks of real flights through the platform (SOURCE=postgresql or kafka: see README)
	@$(BIN)/dp demo --days 14 $(if $(SOURCE),--source $(SOURCE))

ui: $(READY) ## serve the Dagster UI on http://127.0.0.1:3000 (make ui PORT=3001: on another port)
	@$(BIN)/dp ui --port $(PORT)

# One worker a core, and one thread of DuckDB a worker, which reads there how many cores it has: with more of them the
# thread that asked spins while another one works, or waits for the catalog, a third of the suite's time.
test: $(READY) ## the tests that need nothing but Python (minutes)
	@SLURM_CPUS_ON_NODE=1 NO_SERVERS=1 $(BIN)/pytest -q -n $(WORKERS) --dist loadscope --no-loadscope-reorder \
	  -m "not attack and not bench and not browser and not crash and not newcomer and not servers and not year"

# These wait for servers, so that one more of them than there are cores goes on meanwhile.
test-servers: $(READY) ## the tests on servers: PostgreSQL, MariaDB, Kafka, MongoDB, HBase, taps (minutes; Java, Maven, Go)
	@SLURM_CPUS_ON_NODE=1 $(BIN)/pytest -q -n $$(($(WORKERS) + 1)) --dist loadscope --no-loadscope-reorder \
	  -m "servers and not attack and not bench and not browser and not crash and not newcomer and not year"

test-bench: $(READY) ## run every benchmark at a small scale, to see that it works (minutes)
	@$(BIN)/pytest -q -m bench

test-histories: $(READY) ## try five times as many random histories as the suite does (minutes; HISTORIES=50: so many times)
	@HISTORIES=$(HISTORIES) $(BIN)/pytest -q -m histories

test-crash: $(READY) ## kill processes at random instants, on both catalogs (minutes; KILLS=25: in each test)
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadscope -m crash

test-attack: $(READY) ## what is lost, stalls, lies, expands or floods, and the memory that it takes (minutes)
	@$(BIN)/pytest -q -m attack

test-year: $(READY) ## play all 365 days and reconcile them to the row, and some of them on PostgreSQL (minutes)
	@$(BIN)/pytest -q -m year --timeout 3000

test-browser: $(READY) ## drive the UI in headless Chromium
	@$(BIN)/pytest -q -m browser --timeout 600

test-newcomer: $(READY) ## from the built wheel in an empty folder to a platform of one's own (minutes)
	@$(BIN)/pytest -q -s -m newcomer

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy platform platform_tests

bench: $(READY) ## measure side by side with DuckDB and dlt, and print the ratios
	@$(BIN)/python -m platform_tests.benchmarks

lock: ## write requirements.lock anew from pyproject.toml
	@$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-annotate --no-header --all-extras --group dev -o requirements.lock pyproject.toml

clean: ## remove the environment; the platform's state stays
	@rm -rf .venv

.PHONY: help setup demo ui test test-servers test-bench test-histories test-crash test-attack test-year test-browser \
  test-newcomer lint bench lock clean
