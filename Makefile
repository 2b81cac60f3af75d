# The commands people type. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# The folders of Python that exist; some are only there in a full checkout.
CODE := plugin proxy scripts tests $(wildcard bench fuzz lab soak)
# Unit tests are independent of each other; the others share an agent and the machine's two cores.
UNIT_JOBS ?= 2

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Prepare everything: Debian packages, .venv, Consul, Envoy (seconds when up to date)
	@scripts/setup

.PHONY: run
run: setup ## Run a gateway with a real Consul and a sidecar on this machine: make run ARGS="..."
	@$(BIN)/consul-tgw dev $(ARGS)

.PHONY: test
test: setup lint types unit real ## Everything that has to pass: lint, types, all tests

.PHONY: check
check: setup lint types unit ## The quick part of `make test`

.PHONY: lint
lint: setup ## Check style
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

.PHONY: types
types: setup ## Check types
	$(BIN)/mypy

.PHONY: fmt
fmt: setup ## Format, and fix what lint can fix
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

.PHONY: unit
unit: setup ## Run the unit tests: make unit ARGS="-k name"
	$(PYTEST) tests/unit -n $(UNIT_JOBS) $(ARGS)

.PHONY: real
real: setup ## Run the tests on real sockets, a real Consul and a real Envoy
	$(PYTEST) tests --ignore=tests/unit --ignore=tests/compiled $(ARGS)

.PHONY: compiled
compiled: setup ## Compile the modules of workers, and try them: tests/compiled, behaviour, smuggling (ARGS="-k name")
	$(BIN)/python -m scripts.compiled
	CONSUL_TGW_CODE=compiled $(PYTEST) tests/compiled tests/behaviour tests/smuggling $(ARGS)

.PHONY: conformance
conformance: setup ## Run the cases shared with Envoy's gateway and write docs/conformance.md
	$(PYTEST) tests/conformance --conformance-page docs/conformance.md $(ARGS)

.PHONY: test-pythons
test-pythons: setup ## Run the unit tests under each Python 3.11 to 3.13 found here
	@scripts/test-pythons $(ARGS)

.PHONY: bench
bench: setup ## Compare with Envoy and others, 22 minutes; writes docs/performance.md: make bench ARGS="--only echo,http"
	@$(BIN)/python -m bench.tools
	$(BIN)/python -m bench $(ARGS)

.PHONY: lab
lab: setup ## Two datacenters in network namespaces, as root: make lab ARGS="up|check|shell HOST|down" (all in one)
	@$(BIN)/python -m lab $(ARGS)

.PHONY: scale
scale: setup ## Many services, connections and intentions: cost and growth, beside Envoy; writes docs/scale.md
	$(BIN)/python -m bench.scale $(ARGS)

.PHONY: fuzz
fuzz: setup ## Fuzz with coverage guidance: make fuzz TARGET=frames SECONDS=300 (all, a minute each)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/fuzz.lock
	$(BIN)/python -m fuzz $(TARGET) --seconds $(or $(SECONDS),60)

.PHONY: floods
floods: setup ## Floods of full size with legitimate traffic; figures in build/reliability/floods.json
	$(PYTEST) tests/floods --full-floods --floods-report build/reliability/floods.json $(ARGS)

.PHONY: soak
soak: setup ## Load, faults and invariants, all at once: make soak MINUTES=60 (10), ARGS="--seed 7"
	@$(BIN)/python -m soak --minutes $(or $(MINUTES),10) $(ARGS)

.PHONY: audit
audit: setup ## Check locks and licences, look for known vulnerabilities, write build/audit/sbom.cdx.json (ARGS=--offline)
	@scripts/tools audit >/dev/null
	@$(BIN)/python -m scripts.audit $(ARGS)

.PHONY: release
release: setup ## Build wheel, sdist, zipapp, sums and provenance of this commit into dist/ (CHECK=1 builds twice)
	@scripts/tools audit >/dev/null
	@scripts/tools release >/dev/null
	@$(BIN)/python -m scripts.release $(if $(CHECK),--check)

.PHONY: reference
reference: setup ## Write docs/reference anew: flags, metrics, fields and routes as the code has them
	@$(BIN)/python -m scripts.reference

.PHONY: docs
docs: setup ## Build the documentation as a site in build/site, which asks no other host for anything
	@scripts/tools docs >/dev/null
	@$(BIN)/python -m scripts.site

.PHONY: lab-all
lab-all: setup ## All of the lab's tests, as root: also the plain federation, and faults in each federation (20 minutes)
	$(PYTEST) tests/lab --all-federations $(ARGS)

.PHONY: lab-machines
lab-machines: setup ## The lab on virtual machines, after `cd vagrant && vagrant up`: ARGS="--federation wan"
	@$(BIN)/python -m lab machines provision $(ARGS)

.PHONY: lock
lock: setup ## Resolve the dependencies of pyproject.toml again
	@scripts/lock $(ARGS)

.PHONY: clean
clean: ## Remove what is made in this folder (Consul in the cache stays)
	rm -rf $(VENV) .setup-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
