# `make demo` and `make test` need nothing but Python 3.11+ and make: they create .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow fidelity lint results clean

demo: $(STAMP)  ## train and attack two defenses on real digits, print the leaderboard (minutes)
	LTBENCH_RUNS=demo/runs LTBENCH_RESULTS=demo/results $(BIN)/ltbench run --method reat --dataset digits-lt
	LTBENCH_RUNS=demo/runs LTBENCH_RESULTS=demo/results $(BIN)/ltbench run --method at --dataset digits-lt
	LTBENCH_RESULTS=demo/results $(BIN)/ltbench report leaderboard

test: $(STAMP)  ## the whole suite but the slow checks
	$(BIN)/python -m pytest

test-slow: $(STAMP)  ## the slow checks alone
	$(BIN)/python -m pytest -m slow

fidelity: $(STAMP)  ## docs/fidelity.md: what each method is compared with, and how close it comes
	$(BIN)/python -m pytest tests/golden tests/maths --fidelity docs/fidelity.md

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

results: $(STAMP)  ## the committed digits-lt records, tables and figures (43 minutes of one core; records hold the times)
	$(BIN)/ltbench run --dataset digits-lt --threads 1 --seed 0 --seed 1 --seed 2 \
	  --method at --method trades --method robal --method reat --method at-bsl
	$(BIN)/ltbench run --dataset digits-lt --threads 1 --seed 0 --seed 1 --seed 2 --method robal --set variant=N
	$(BIN)/ltbench report leaderboard

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ltrobust-bench needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[robustbench,dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo build dist
