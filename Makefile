# `make demo` and `make test` need nothing but Python 3.11+ and make: they create .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# LOCK=requirements.lock (continuous integration): the packages of that file, by hash, and no others.
LOCK ?=

# For `make lite`: which defense, and whatever else `ltbench run` takes (--seed 1, --set tau=2, ...).
METHOD ?= reat
ARGS ?=
LITE := ltr-linf-lite-v1
DATA := $(or $(LTBENCH_DATA),data)

DOCS := .venv-docs

# `make test-versions`: which Python, of the packages the lowest versions that pyproject.toml allows or the highest, where
# they are installed (6 GB), and tests that go through all rooms.
WITH := 3.11
RESOLUTION := lowest-direct
VERSIONS := .venv-$(WITH)-$(RESOLUTION)
VERSIONS_TESTS := $(addprefix tests/,$(addprefix unit/test_,registry.py tables.py figures.py records_io.py metrics.py data.py folders.py interop.py) \
  maths/test_attacks.py cli/test_cli_list_show.py cli/test_cli_habits.py site/test_site.py)

.PHONY: audit board lock cluster docs fuzz gpu-check demo lite test test-slow test-versions fidelity autoattack-equivalence faults screenshots lint results clean

demo: $(STAMP)  ## train and attack two defenses on real digits, print the leaderboard (minutes)
	LTBENCH_RUNS=demo/runs LTBENCH_RESULTS=demo/results $(BIN)/ltbench run --method reat --dataset digits-lt
	LTBENCH_RUNS=demo/runs LTBENCH_RESULTS=demo/results $(BIN)/ltbench run --method at --dataset digits-lt
	LTBENCH_RESULTS=demo/results $(BIN)/ltbench report leaderboard --records demo/runs

lite: $(STAMP)  ## METHOD=reat on real CIFAR-10, beside the committed board: ten minutes to an hour of one core, after a download of 170 MB
	$(BIN)/ltbench data prepare cifar10-lt --data-dir $(DATA)
	LTBENCH_RUNS=lite/runs LTBENCH_RESULTS=lite/results $(BIN)/ltbench run --method $(METHOD) --dataset cifar10-lt --protocol $(LITE) --data-dir $(DATA) --device cpu --threads 1 $(ARGS)
	$(BIN)/ltbench report leaderboard $(patsubst %,--records %,$(wildcard results/records/$(LITE)) lite/runs) --results-dir lite/results --no-figures

test: $(STAMP)  ## the whole suite but the slow checks, file by file on every core
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)  ## the slow checks alone
	$(BIN)/python -m pytest -m slow

test-versions: $(STAMP)  ## a part of the suite with the lowest versions of all packages (WITH=3.13 RESOLUTION=highest: another Python, the newest)
	$(BIN)/python -m pip install --quiet -e '.[supply]'
	$(BIN)/uv venv --quiet --allow-existing --python $(WITH) $(VERSIONS)
	$(BIN)/uv pip install --quiet --python $(VERSIONS) --resolution $(RESOLUTION) -e . 'pytest>=8' 'hypothesis>=6.120' 'pyyaml>=6'
	$(VERSIONS)/bin/python -m pytest $(VERSIONS_TESTS)

fidelity: $(STAMP)  ## docs/fidelity.md: what each method is compared with, and how close it comes
	$(BIN)/python -m pytest tests/golden tests/maths --fidelity docs/fidelity.md

autoattack-equivalence: $(STAMP)  ## our AutoAttack beside its authors' on real CIFAR-10 (LTBENCH_DATA=DIR)
	$(BIN)/python benchmarks/autoattack_equivalence.py

faults: $(STAMP)  ## full disks, damaged files, signals and 200 kills, counted (minutes)
	$(BIN)/python benchmarks/faults.py

fuzz: $(STAMP)  ## 100,000 odd inputs of every kind, counted (a quarter of an hour of one core; ARGS='--kind npz --cases 1000')
	$(BIN)/python benchmarks/fuzz.py $(ARGS)

gpu-check: $(STAMP)  ## the CUDA path: is it right, and how fast (ten minutes on a GPU; JSON in gpu-check/)
	$(BIN)/python benchmarks/gpu/check.py

cluster: $(STAMP)  ## sweeps whose nodes and workers are killed, by Ray, local processes and submitit (a quarter of an hour)
	$(BIN)/python -m pip install --quiet -e '.[ray,slurm]'
	$(BIN)/python benchmarks/cluster.py
	$(BIN)/python benchmarks/simulate_sweep.py

lock: $(STAMP)  ## requirements.lock: every package by version and hash, as tested in this .venv; CI installs no others
	$(BIN)/python -m pip install --quiet -e '.[supply]'
	$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/tested.txt
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra robustbench --extra supply --universal --python-version 3.11.9 --generate-hashes --no-header \
	  --quiet --constraint $(VENV)/tested.txt --output-file requirements.lock

audit: $(STAMP)  ## known vulnerabilities and licences of the locked packages, and zizmor on the workflows
	$(BIN)/python -m pip install --quiet -e '.[supply]'
	$(BIN)/python .github/supply.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

results: $(STAMP)  ## the committed digits-lt records, tables and figures (7.0 hours of one core; records hold the times)
	$(BIN)/ltbench sweep results/plan.toml --threads-per-worker 1
	$(MAKE) board

board: $(STAMP)  ## everything that is written from the committed records: tables, figures, claims, campaign, README
	$(BIN)/ltbench report leaderboard
	$(BIN)/ltbench report claims
	$(BIN)/ltbench report campaign campaigns/cifar10-lite.toml
	$(BIN)/python docs/readme.py

docs: $(DOCS)/.installed  ## the documentation site, docs/_build/index.html; a warning is an error
	$(DOCS)/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build

$(DOCS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -e '.[docs]'
	touch $@

screenshots: $(STAMP)  ## docs/site-*.png and docs/figure-*.png: pages (in Debian's chromium) and figures of the committed records
	$(BIN)/python docs/screenshots.py

$(STAMP): pyproject.toml $(LOCK)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ltrobust-bench needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
ifeq ($(LOCK),)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[robustbench,dev]'
else
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
endif
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(VENV)-* docs/_build demo fuzz lite build dist
