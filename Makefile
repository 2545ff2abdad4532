# Two commands matter: `make run` and `make test`. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCALSTACK := .venv-localstack

# Which environment of samconfig.toml, and the processor that it is for unless the command line says otherwise.
ENV ?= default
DEPLOYED_ARCHITECTURE = $(shell $(BIN)/python -m local.artefacts --architecture-of $(ENV))
ARCHITECTURE ?= $(DEPLOYED_ARCHITECTURE)
F ?= ListFunction
EVENT ?= events/list-first-page.json
SCALE ?= 50
MINUTES ?= 5
# One more than cores: half of what a test does is to wait. A fourth kept tests with a deadline waiting for a core.
WORKERS ?= 3
PYTEST = $(BIN)/python -m pytest -q -rs -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help run test test-client-matrix lint format bench build preflight deploy local-api local-invoke test-sam-local \
	test-localstack prove schema lock mutate clean

help:  ## What there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-18s %s\n", $$1, $$2}' Makefile

run: $(VENV)/run.stamp  ## Serve the registry on http://127.0.0.1:3000
	@exec $(BIN)/python -m local

test: $(VENV)/dev.stamp  ## Run every check and every test (WORKERS=3)
	@$(PYTEST) $(ARGS)

test-client-matrix: $(VENV)/dev.stamp  ## Test the client, with older frameworks as well
	@$(PYTEST) client/tests -m 'matrix or not matrix' $(ARGS)

# Without ruff's cache, which a read-only clone has no place for; that is 0.2 s.
lint: $(VENV)/dev.stamp  ## Style, types and the template
	@$(BIN)/ruff check --quiet --no-cache .
	@$(BIN)/ruff format --quiet --check --no-cache .
	@$(BIN)/basedpyright --level error
	@SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=eu-west-1 $(BIN)/sam validate --lint --template template.yaml

format: $(VENV)/dev.stamp  ## Rewrite the code in the house's format
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

bench: $(VENV)/dev.stamp  ## Measure what docs and goals state; takes minutes
	@$(BIN)/python -m benchmarks

build: $(VENV)/dev.stamp  ## Build what is deployed (ARCHITECTURE=arm64); no Docker
	@PATH="$(CURDIR)/$(BIN):$$PATH" ARCHITECTURE=$(ARCHITECTURE) SAM_CLI_TELEMETRY=0 $(BIN)/sam build \
	  --config-env $(ENV) --parameter-overrides Architecture=$(ARCHITECTURE) $(ARGS)
	@$(BIN)/python -m local.artefacts --architecture $(ARCHITECTURE)

preflight: $(VENV)/dev.stamp  ## Ask the account what would fail to deploy; reads only
	@$(BIN)/python -m local.preflight --config-env $(ENV) $(ARGS)

# What would fail stops it before anything is built; with --guided not, for sam asks afterwards what to deploy.
deploy: $(VENV)/dev.stamp  ## Build and deploy one of samconfig.toml (ENV=prod)
	@test "$(ARCHITECTURE)" = "$(DEPLOYED_ARCHITECTURE)" \
	  || { echo "samconfig.toml deploys $(ENV) for $(DEPLOYED_ARCHITECTURE): change Architecture there" >&2; exit 1; }
	@$(BIN)/python -m local.preflight --config-env $(ENV) $(ARGS) $(if $(filter --guided -g,$(ARGS)),|| test $$? -eq 1)
	@$(MAKE) --no-print-directory build ENV=$(ENV) ARCHITECTURE=$(ARCHITECTURE) ARGS=
	@option=$$($(BIN)/python -m local.preflight --rollback --config-env $(ENV) $(ARGS)) || exit 1; \
	  SAM_CLI_TELEMETRY=0 $(BIN)/sam deploy --config-env $(ENV) $$option $(ARGS)

local-api: $(VENV)/dev.stamp  ## Serve the API by `sam local`; needs Docker
	@$(BIN)/python -m local.sam
	@$(MAKE) --no-print-directory build
	@exec $(BIN)/python -m local.sam start-api $(ARGS)

local-invoke: $(VENV)/dev.stamp  ## One function by `sam local` (F=, EVENT=); needs Docker
	@$(BIN)/python -m local.sam
	@$(MAKE) --no-print-directory build
	@$(BIN)/python -m local.sam invoke $(F) --event $(EVENT) $(ARGS)

test-sam-local: $(VENV)/dev.stamp  ## Ask every route by `sam local`; needs Docker
	@$(BIN)/python -m local.sam
	@$(MAKE) --no-print-directory build
	@PYTHONPATH=layers/registry $(BIN)/python -m tests.sam_local

test-localstack: $(LOCALSTACK)/stamp  ## Deploy to LocalStack and ask it; needs Python 3.13
	@PYTHONPATH=layers/registry $(BIN)/python -m tests.localstack $(LOCALSTACK)/bin/python

prove: $(VENV)/dev.stamp  ## Measure every promise of reliability; half an hour
	@MINUTES=$(MINUTES) PYTHONPATH=layers/registry:client/src $(BIN)/python -m tests.prove --scale $(SCALE) $(ARGS)

schema: $(VENV)/dev.stamp  ## Write sql/schema.sql from the migrations
	@$(BIN)/python -m local.schema

lock: $(VENV)/dev.stamp  ## Pin the newest versions that requirements/*.in admit
	@cd requirements && for pair in dev.in:dev.txt run.in:run.txt fuzz.in:fuzz.txt mutate.in:mutate.txt layer.in:../layers/dependencies/requirements.txt; do \
	  ../$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	    --no-header --no-annotate $$([ "$$pair" = dev.in:dev.txt ] || echo "-c dev.txt") \
	    "$${pair%%:*}" -o "$${pair##*:}" || exit 1; done

mutate: $(VENV)/mutate.stamp  ## Put in defects one by one: which does no test see?
	@$(BIN)/python -m tests.mutate $(ARGS)

clean:  ## Remove the environment, the local data and every cache
	rm -rf $(VENV) $(LOCALSTACK) .venv-real .venv-example .data .aws-sam .pytest_cache .ruff_cache .hypothesis .schemathesis

# What is there of Python: that of the environment, once it is made.
SETUP = @python=$(BIN)/python; test -x $$python || python="$(PYTHON)"; \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || { echo "The registry needs Python 3.11 or newer: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)" >&2; exit 1; }; \
  $$python -m

# A start that cannot work is told before anything is installed for it.
$(VENV)/run.stamp: requirements/run.txt
	$(SETUP) local.checks
	$(SETUP) local.install $(VENV) $< 400 "what the registry runs with"
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt
	$(SETUP) local.install $(VENV) $< 1200 "what the tests need"
	@touch $@ $(VENV)/run.stamp

# In an environment of its own, of the packages of its day: it asks for older ones than the tests do. Of Python 3.13, for
# the functions run by it, in the layers. A shim of pyenv may start nothing, so what is behind them is tried as well.
$(LOCALSTACK)/stamp: requirements/localstack.txt | $(VENV)/dev.stamp
	@for python in $(PYTHON) python3.13 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.13.*/bin/python \
	    "$$($(BIN)/uv python find 3.13 2>/dev/null)"; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null || continue; \
	  exec "$$python" -m local.install $(LOCALSTACK) $< 600 "LocalStack"; \
	done; echo "LocalStack needs Lambda's Python, 3.13: make PYTHON=/path/to/python3.13 test-localstack" >&2; exit 1
	@touch $@

$(VENV)/mutate.stamp: requirements/mutate.txt $(VENV)/dev.stamp
	$(SETUP) local.install $(VENV) $< 100 "what makes mutants"
	@touch $@
