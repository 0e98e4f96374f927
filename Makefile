# The commands of this repository; each makes what it needs.
PYTHON ?= python3
BIN := .venv/bin
SEED ?= 1
.DEFAULT_GOAL := help
.PHONY: help demo up test check chaos soak results lint format clean

help:
	@echo 'make demo    start the four processes, classify 60 sentences, show the ledger, stop'
	@echo 'make up      the testbed, until Ctrl-C'
	@echo 'make test    every test'
	@echo 'make check   what CI runs: every test, then the containers'
	@echo 'make chaos   35 minutes of overload, faults and 20,000 malformed requests'
	@echo 'make soak    half an hour at 70 % of the capacity; fails if memory or p99 grows'
	@echo 'make results every table and plot of docs/results from its JSONs'
	@echo 'make lint    ruff, mypy and the import laws only'
	@echo 'make format  format the code'
	@echo 'make clean   remove the virtual environment and caches'

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("dimee needs Python 3.11 or newer; say which: make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

# The tiers and the command: no torch.
.venv/.tiers: pyproject.toml deploy/constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[service,ledger]'
	@touch $@

# Everything: the lab and the tests too.
.venv/.all: pyproject.toml deploy/constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[service,ledger,lab,testbed,test]'
	@touch $@ .venv/.tiers

demo: .venv/.tiers
	@$(BIN)/dimee demo

up: .venv/.tiers
	@$(BIN)/dimee up

test: .venv/.all
	$(BIN)/python -m pytest

check:
	bash .ci/run

# The figures are written to .chaos/*.json. Each command runs even if the one before it failed.
chaos: .venv/.all
	@mkdir -p .chaos
	@failed=0; for what in \
	  "overload --tier edge --out .chaos/overload-edge.json" \
	  "overload --tier cloud --out .chaos/overload-cloud.json" \
	  "five_minutes --out .chaos/five-minutes.json" \
	  "malformed --cases 20000 --out .chaos/malformed.json" \
	  "schedules --count 200 --seconds 20 --testbeds 4 --seed $(SEED) --out .chaos/schedules.json"; do \
	  echo "testbed.chaos.$$what"; $(BIN)/python -m testbed.chaos.$$what || failed=1; done; exit $$failed

soak: .venv/.all
	@mkdir -p .chaos
	$(BIN)/python -m testbed.chaos.soak --minutes 30 --load 0.7 --out .chaos/soak.json

results: .venv/.all
	$(BIN)/python -m lab.reports

lint: .venv/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
