# `make demo` and `make test` need nothing but Python 3.11+ and make: they create .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: cluster demo test test-slow fidelity autoattack-equivalence screenshots lint results clean

demo: $(STAMP)  ## train and attack two defenses on real digits, print the leaderboard (minutes)
	LTBENCH_RUNS=demo/runs LTBENCH_RESULTS=demo/results $(BIN)/ltbench run --method reat --dataset digits-lt
	LTBENCH_RUNS=demo/runs LTBENCH_RESULTS=demo/results $(BIN)/ltbench run --method at --dataset digits-lt
	LTBENCH_RESULTS=demo/results $(BIN)/ltbench report leaderboard --records demo/runs

test: $(STAMP)  ## the whole suite but the slow checks, file by file on every core
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)  ## the slow checks alone
	$(BIN)/python -m pytest -m slow

fidelity: $(STAMP)  ## docs/fidelity.md: what each method is compared with, and how close it comes
	$(BIN)/python -m pytest tests/golden tests/maths --fidelity docs/fidelity.md

autoattack-equivalence: $(STAMP)  ## our AutoAttack beside its authors' on real CIFAR-10 (LTBENCH_DATA=DIR)
	$(BIN)/python benchmarks/autoattack_equivalence.py

cluster: $(STAMP)  ## sweeps whose nodes and workers are killed, by Ray, local processes and submitit (a quarter of an hour)
	$(BIN)/python -m pip install --quiet -e '.[ray,slurm]'
	$(BIN)/python benchmarks/cluster.py
	$(BIN)/python benchmarks/simulate_sweep.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

BOARD := $(BIN)/ltbench run --dataset digits-lt --threads 1 --seed 0 --seed 1 --seed 2
results: $(STAMP)  ## the committed digits-lt records, tables and figures (4.5 hours of one core; records hold the times)
	$(BOARD) --method erm --method at --method trades --method mart --method alp --method cfa --method dafa \
	  --method robal --method reat --method at-bsl --method taet --method selfdistill --method at-balanced \
	  --method reweight --method focal --method cb-focal --method ldam --method logit-adjust --method cdt \
	  --method cosine --method tde --method resample --method crt --method rw-fine --method lws \
	  --method tau-norm --method logit-adjust-posthoc --method cdt-posthoc
	$(BOARD) --method robal --set variant=N
	$(BOARD) --method at-bsl --set augment=randaugment
	$(BOARD) --method at-bsl --set augment=autoaugment
	$(BOARD) --method reweight --set weights=effective
	$(BOARD) --method ldam --set drw_start=0.5
	$(BOARD) --method cosine --set margin=0.2 --set scale=10
	$(BOARD) --method resample --set kind=square-root
	$(BOARD) --method resample --set kind=progressive
	$(BOARD) --method at --plugin awp
	$(BOARD) --method trades --plugin awp --set awp.gamma=0.005 --set awp.warmup=0.05
	$(BOARD) --method at --plugin robustlt
	$(BOARD) --method at-bsl --plugin robustlt
	$(BOARD) --method at --profile balanced
	$(BOARD) --method at --imbalance-ratio 1
	$(BOARD) --protocol digits-l2-v0 --method at --method trades --method reat --method robal --method at-bsl \
	  --method resample
	$(BIN)/ltbench report leaderboard

screenshots: $(STAMP)  ## docs/site-*.png and docs/figure-*.png: pages (in Debian's chromium) and figures of the committed records
	$(BIN)/python docs/screenshots.py

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ltrobust-bench needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[robustbench,dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo build dist
