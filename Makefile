# Wharfinger. `make help` lists the targets; each does its own set-up.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
NEIGHBOURS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/wharfinger/neighbours/bin
export PATH := $(CURDIR)/$(BIN):$(NEIGHBOURS):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help venv lock demo test test-neighbours neighbours lint bench docs generate system-packages clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "wharfinger needs Python 3.11 or newer, got " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

venv: $(STAMP) ## the virtual environment, installed from the lock file

lock: ## renew requirements.lock from pyproject.toml
	@$(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra dev --custom-compile-command 'make lock' --emit-build-options -o requirements.lock pyproject.toml deploy/build-requirements.in
	@rm -rf $(VENV)-lock

demo: $(STAMP) ## the whole story on this machine: from a dataset to a governed answer
	@$(BIN)/wharf demo

test: $(STAMP) ## every test that needs no built neighbour
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not neighbours and not serial' tests
	$(BIN)/python -m pytest -m 'serial and not neighbours' tests

neighbours: ## build kubectl, etcd, kube-apiserver, oras and the DRA oracle from their Go modules
	@deploy/neighbours/build.sh

test-neighbours: $(STAMP) ## the tests against the real neighbours
	$(BIN)/python -m pytest -m neighbours tests

lint: $(STAMP) ## ruff, mypy --strict, layers, purity, sizes, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest tests/house

generate: $(STAMP) ## regenerate CRDs and reference docs from the code
	$(BIN)/python -m wharfinger.kinds.crd deploy/crds
	$(BIN)/python docs/reference.py

docs: generate ## the reference docs, generated from the code

bench: $(STAMP) ## every figure of docs/benchmarks.md, beside its peer, raw JSON kept in out/
	$(BIN)/python -m bench

system-packages: ## Debian packages that a few features need: chromium for the console's browser tests
	apt-get install -y --no-install-recommends chromium

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache out
