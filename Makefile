# What people and CI call. `make setup` is quick when nothing changed.
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.sparehive-setup

.DEFAULT_GOAL := help
.PHONY: help setup demo test check clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(STAMP) ## Install everything into .venv

# torch first and alone: a range would let pip take the newest build with gigabytes of CUDA packages.
CONTRACTS := incentives/contracts

$(STAMP): pyproject.toml requirements.lock $(CONTRACTS)/package-lock.json
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@if command -v npm >/dev/null; then npm ci --prefix $(CONTRACTS) --ignore-scripts --no-audit --no-fund --loglevel=error; \
	else echo 'npm is not installed: no local chain; demo and chain tests need it'; fi
	touch $(STAMP)

demo: setup ## Train, settle and claim on this machine, in five minutes (DATA=path for your own text)
	$(VENV)/bin/sparehive demo $(if $(DATA),--data '$(DATA)')

test: setup ## Run all tests
	$(PY) -m pytest

check: setup ## Lint, format, types, import directions
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean: ## Remove what can be made again
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
