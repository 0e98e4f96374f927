# The commands of this repository. Each installs what it needs into .venv.
PYTHON ?= python3
BIN := .venv/bin
SEED ?= 1
.DEFAULT_GOAL := help
.PHONY: help demo up test ray check chaos soak results reference lint format web clean

help:
	@echo 'make demo       classify 60 sentences in four processes, print the ledger, name the page'
	@echo 'make up         run the four processes until Ctrl-C'
	@echo 'make test       run the tests, without the long ones and those that need containers'
	@echo 'make check      what CI runs: make test, the long tests, the container check'
	@echo 'make chaos      35 minutes of faults: overload, 200 random schedules, five minutes, 20,000 bad requests'
	@echo 'make soak       30 minutes at 70 % of the capacity: measures memory growth and drift of p99'
	@echo 'make results    write the tables and figures of docs/results from its JSON files'
	@echo 'make reference  write docs/reference from the settings and commands'
	@echo 'make lint       run ruff, mypy and import-linter'
	@echo 'make format     format the code'
	@echo 'make web        check and test the JavaScript of the mobile client; needs Node.js 20 or newer'
	@echo 'make clean      remove the virtual environment and caches'

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("dimee needs Python 3.11 or newer. Name one: make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

# The tiers, the ledger and the dimee command, without torch.
.venv/.tiers: pyproject.toml deploy/constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[service,ledger]'
	@touch $@

# Everything, with lab and tests.
.venv/.all: pyproject.toml deploy/constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[service,ledger,testbed,lab,test]'
	@touch $@ .venv/.tiers

# Ray Serve, which only its own tests need.
.venv/.ray: .venv/.all
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[service,ray]'
	@touch $@

ray: .venv/.ray

demo: .venv/.tiers
	@$(BIN)/dimee demo

up: .venv/.tiers
	@$(BIN)/dimee up

test: .venv/.all
	$(BIN)/python -m pytest -m "not long" -n auto --dist loadfile

check:
	bash .ci/run

# The programs write results to .chaos/*.json. Each program runs even if the one before it failed.
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

reference: .venv/.all
	$(BIN)/python -m tests.support.reference

lint: .venv/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The npm packages of the lock file: types for tsc, and the files in static/vendor, which git has.
WEB := mobile_client/web
$(WEB)/node_modules/.package-lock.json: $(WEB)/package.json $(WEB)/package-lock.json
	cd $(WEB) && npm ci --ignore-scripts --no-audit --no-fund

web: $(WEB)/node_modules/.package-lock.json .venv/.all
	cd $(WEB) && node vendor.mjs && npm run --silent check
	git diff --exit-code -- $(WEB)/static/vendor
	$(BIN)/python -m pytest tests/web

clean:
	rm -rf .venv build $(WEB)/node_modules *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
