# The one entry for people who try sleap-rtc and who work on it; `make help` lists everything.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
ENGINE ?= sleap-nn
DEMO_DIR ?= demo
# Tests that make a real WebRTC connection need an address besides loopback, which a network
# namespace gives them; where none may be made they are skipped, and say why.
NETNS := $(BIN)/python -m sleap_rtc.testing.netns --
PYTEST := $(BIN)/python -m pytest
# Tests start hundreds of processes: without bytecode each would compile the whole package again.
unexport PYTHONDONTWRITEBYTECODE
SOURCES := src tests tools $(wildcard bench)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Run the main job on this machine (ENGINE=sleap-nn|tiny, DEMO_DIR=folder)
	@tools/environment demo
	@$(BIN)/sleap-rtc demo --engine $(ENGINE) --dir $(DEMO_DIR)

# Trainers get one thread: threads of several that wait for each other burn what the others need.
TESTING := OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=ci
# Two cores are busy with five: half of the time that tests take they wait, for each other's
# processes or for a cut to be noticed. With three the cores did nothing for a third of the time.
SIDE_BY_SIDE := -n 5 --dist loadgroup

# What is covered is counted by slipcover, which takes its marks out of code that ran: tracing every
# line for ever, as coverage.py does before Python 3.12, doubles the time of tests that only compute.
.PHONY: test
test: engine ## Set up and run everything, real engine and connections included
	@if $(NETNS) true; then in="$(NETNS)"; else in=; fi; \
	$(TESTING) $$in $(BIN)/python -m slipcover --json --out .coverage.json -m pytest $(SIDE_BY_SIDE) $(ARGS)
	@$(BIN)/python -m slipcover --merge .coverage.json --out .coverage.json --skip-covered --fail-under 80

.PHONY: coverage
coverage: engine ## As test, counting what the processes run that tests start; takes three times as long
	@if $(NETNS) true; then in="$(NETNS)"; else in=; fi; \
	$(TESTING) $$in $(PYTEST) $(SIDE_BY_SIDE) --cov --cov-config=tools/coverage.toml --cov-report=term $(ARGS)

.PHONY: check
check: setup ## What a commit must pass: format, lint, types, layers, fast tests
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(MAKE) --no-print-directory fast

.PHONY: fast
fast: setup ## The fast tests alone (ARGS='-k name' for some of them)
	@$(PYTEST) -m 'not slow and not engine and not webrtc' $(ARGS)

.PHONY: format
format: setup ## Format the code, and mend what the linter can mend
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

.PHONY: bench
bench: ## Measure; the figures go to bench/results (ARGS=--quick for a quick look)
	@tools/environment demo,dev,bench
	@$(BIN)/python -m bench $(ARGS)

.PHONY: docs
docs: setup ## Write the generated parts of the documents anew
	@$(BIN)/python tools/docs.py

.PHONY: setup
setup: ## Make .venv with what developing needs (programs that are optional: CONTRIBUTING.md)
	@tools/environment demo,dev

.PHONY: engine
engine: setup ## Install the trainer sleap-nn into an environment of its own
	@$(BIN)/sleap-rtc engine install sleap-nn

.PHONY: clean
clean: ## Remove what was made here: environment, caches, results (not your library)
	@rm -rf .venv .coverage .coverage.* htmlcov .hypothesis .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache build dist bench/results
