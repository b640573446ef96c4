# All that is installed stays in the checkout: .cache/ (uv, Meltano), .venv/ (the tap), .meltano/ (the plugins).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
OWN_UV := $(if $(shell command -v uv),,.cache/uv/bin/uv)
UV := $(or $(OWN_UV),uv)
MELTANO := .cache/meltano/bin/meltano
EXTRAS := s3,gcs,azure,parquet,dask,fingerprints,report,sandbox
export UV_PYTHON_DOWNLOADS := never
# A company's proxy may sign with a certificate that only the system's store knows, and uv and npm bring their own.
CERTIFICATES := $(wildcard /etc/ssl/certs/ca-certificates.crt)
ifdef CERTIFICATES
export UV_SYSTEM_CERTS := true
export NODE_EXTRA_CA_CERTS ?= $(CERTIFICATES)
endif
unexport VIRTUAL_ENV
# Without files of bytecode each process that collects tests would rewrite their assertions anew, in six seconds.
unexport PYTHONDONTWRITEBYTECODE

# Meltano needs an older SQLAlchemy than the tap's SDK brings, so it has an environment of its own. What pip_url in
# meltano.yml leaves open is resolved as of one day, as uv.lock fixes the rest.
MELTANO_VERSION := 4.4.1
AS_OF := UV_EXCLUDE_NEWER=2026-11-20T00:00:00Z

# What the loaders of deploy/ and the dbt package are tried with.
WAREHOUSES := duckdb==2.0.0 psycopg[binary]==3.3.9 deltalake==1.6.6 pyiceberg[pyarrow,sql-sqlite]==0.12.0 \
  dbt-core==1.11.16 dbt-duckdb==1.11.1 dbt-postgres==1.10.2
# Readers of the SQL for other warehouses, by night.
DIALECTS := sqlglot==30.22.0 zetasql==0.1.5 fakesnow==0.12.1 snowflake-connector-python==4.8.1

# Azure's stand-in for tests; those for S3 and GCS come with the dependency group `test`.
AZURITE_VERSION := 3.37.0

# On every core. The tests of a file stay in one process, which starts their server once; long files come first.
# (Groups by mark would say it better, but xdist 3.8 ignores them with pytest 9.2.)
# One process more than cores: some tests wait for a process of their own, but each process imports and collects all.
PROCESSES := $(shell echo $$((1 + $$(nproc))))
PYTEST := .venv/bin/python -m pytest --numprocesses=$(PROCESSES) --dist=loadfile --no-loadscope-reorder
# Of the quick ones, few wait.
QUICK := --numprocesses=$(shell nproc) --dist=worksteal -m "not external and not slow and not night"

.PHONY: help setup demo check test night night-tests soak loaders lowest newest audit fuzz lint bench findings generate clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: .venv/.synced .meltano/.installed ## install the tap, Meltano and the plugins of meltano.yml

DEMO_CHANGED := 0

demo: setup ## load 20,000 made-up users into DuckDB; again with DEMO_CHANGED=5
	@.venv/bin/python demo/run.py --changed "$(DEMO_CHANGED)"

check: lint ## each commit: lint, and run the tests that need no server and no seconds
	@$(PYTEST) $(QUICK) $(PYTEST_ARGS)

test: setup .cache/azurite/.installed .cache/warehouses/.installed ## test each promise; installs missing Debian packages
	@scripts/prerequisites.sh postgresql
	@scripts/prerequisites.sh chromium
	@scripts/prerequisites.sh gcc
	@$(PYTEST) $(PYTEST_ARGS)

# What fails at once comes first. The other prerequisites are as they are by day.
night: FUZZ_SECONDS := 20
night: lowest newest loaders soak fuzz night-tests ## before a release: lowest, newest, loaders, soak, fuzz, and all inputs of all tests

# New histories each night: their seeds stand in the names of the tests, and CRASH_FIRST=seed plays them again.
night-tests: export NIGHT := 1
night-tests: export HOSTILE_EXAMPLES := 300
night-tests: export SET_CLOCKS := 100
night-tests: export BUCKET_HISTORIES := 3000
night-tests: export KILL_STRIDE := 1
night-tests: export CRASH_HISTORIES := 36
night-tests: export CRASH_FIRST := $(or $(CRASH_FIRST),$(shell echo $$((100 * ($$(date +%s) / 86400)))))
night-tests: .cache/dialects/.installed test

soak: setup ## 200 nights on one spool_dir and one STATE
	@.venv/bin/python -m tests.support.soak

MORE_LOADERS := meltanolabs-target-csv==0.5.0 target-universal-file==0.0.1 pipelinewise-target-postgres==2.1.2

loaders: .venv/.synced | $(OWN_UV) ## try three more loaders: rows sent and rows loaded
	@scripts/prerequisites.sh postgresql
	@for each in $(MORE_LOADERS); do folder=.cache/loaders/$${each%%==*}; \
	  $(AS_OF) $(UV) venv --quiet --allow-existing --python "$(PYTHON)" $$folder; \
	  $(AS_OF) $(UV) pip install --quiet --python $$folder $$each; done
	@.venv/bin/python scripts/more_loaders.py

lowest newest: | $(OWN_UV)
	@$(UV) venv --quiet --allow-existing --python "$(PYTHON)" .cache/$@
	@$(UV) pip install --quiet --upgrade --python .cache/$@ --resolution $(RESOLUTION_$@) --editable '.[$(EXTRAS)]' --group test
	@.cache/$@/bin/python -m pytest --quiet $(QUICK) $(PYTEST_ARGS)

lowest: ## run the quick tests on the oldest versions allowed
newest: ## run the quick tests on the newest versions there are
RESOLUTION_lowest := lowest-direct
RESOLUTION_newest := highest

audit: | $(OWN_UV) ## look up vulnerabilities of uv.lock at https://api.osv.dev
	@$(UV) audit --locked

FUZZ_SECONDS := 60
FUZZ_TARGET :=

fuzz: | $(OWN_UV) ## fuzz for FUZZ_SECONDS=60 each, or FUZZ_TARGET=lines alone (Linux)
	@$(UV) sync --quiet --locked --all-extras --group fuzz --python "$(PYTHON)"
	@.venv/bin/python -m fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGET)

lint: .venv/.synced ## check style, format, types and the order of imports
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

bench: setup ## measure the tap, in 15 minutes; BENCH_ARGS=--quick for a glance
	@.venv/bin/python -m benchmarks $(BENCH_ARGS)

findings: ## run what surprised us in other software: is it still so?
	@for each in findings/*.sh; do echo "$$each"; bash "$$each" 2>/dev/null; done

generate: setup ## rewrite what is derived from the tap's settings and streams
	.venv/bin/python scripts/generate_docs.py

clean: ## remove all that the other targets have made
	rm -rf .cache .venv .meltano .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis output/*

.cache/uv/bin/uv:
	@PYTHON="$(PYTHON)" scripts/prerequisites.sh uv

.venv/.synced: pyproject.toml uv.lock | $(OWN_UV)
	@$(UV) sync --quiet --locked --all-extras --python "$(PYTHON)"
	@touch $@

$(MELTANO): Makefile | $(OWN_UV)
	@$(AS_OF) $(UV) venv --quiet --allow-existing --python "$(PYTHON)" .cache/meltano
	@$(AS_OF) $(UV) pip install --quiet --python .cache/meltano meltano==$(MELTANO_VERSION)
	@touch $@

.cache/azurite/.installed: Makefile
	@scripts/prerequisites.sh npm
	@npm install --prefix $(@D) --no-fund --no-audit --loglevel=error azurite@$(AZURITE_VERSION) >/dev/null
	@touch $@

.cache/warehouses/.installed: PACKAGES = $(WAREHOUSES)
.cache/dialects/.installed: PACKAGES = $(DIALECTS)
.cache/warehouses/.installed .cache/dialects/.installed: Makefile | $(OWN_UV)
	@$(AS_OF) $(UV) venv --quiet --allow-existing --python "$(PYTHON)" $(@D)
	@$(AS_OF) $(UV) pip install --quiet --python $(@D) $(PACKAGES)
	@touch $@

.meltano/.installed: meltano.yml pyproject.toml $(MELTANO)
	@PATH="$(CURDIR)/.cache/uv/bin:$$PATH" $(AS_OF) $(MELTANO) --log-level=warning install
	@touch $@
