"""docs/fidelity.md covers every method, and no golden case is left unused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ltrobust_bench.cards import methods, plugins

GOLDEN = Path(__file__).parents[1] / "golden"
SECTIONS = dict(
    re.findall(
        r"^## (\S+)\n(.*?)(?=^## |\Z)",
        (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text(encoding="utf-8"),
        flags=re.M | re.S,
    )
)
LEFT_OUT = {
    ("dafa", "pgd_step_second_unweighted_move"): "a slip of the released code that our card names and does not repeat",
    ("lr_schedules", "awp_at_piecewise"): "a rate per iteration; a plug-in follows its host's schedule",
    ("lr_schedules", "ldam_warmup"): "the original's schedule for clean training; ours is that of RoBal's study",
    ("lr_schedules", "robal_lws_resume80"): "ten epochs are scheduled, one is used: our card's recipe",
    (
        "weight_averaging",
        "in_loop_start_then_average",
    ): "an average that the released training computes and never saves",
    ("mcat_geom", "etf_normalized_c3_d5"): "a regulariser that the released training never calls",
    ("mcat_geom", "etf_alpha_beta_c5_d3"): "as above",
    ("splits", "synthetic_robustlt"): "RobustLT's own split; the protocol's is LDAM's",
    ("splits", "robustlt_stored_cifar10_ir10_seed103"): "as above",
    ("splits", "robustlt_stored_cifar10_ir50_seed102"): "as above",
}


@pytest.mark.parametrize("slug", [*methods.names(), *plugins.names()])
def test_every_method_is_compared_and_has_a_mutant(slug):
    section = SECTIONS[slug]
    assert "| official function |" in section or "By hand: " in section
    assert re.search(r"Mutants caught: \S.*\.", section)


def test_the_report_names_no_method_that_is_gone():
    assert set(SECTIONS) == {*methods.names(), *plugins.names()}


PROGRAM = """
import importlib, json, pathlib
from _pytest.mark.structures import ParameterSet
used = set()
for file in pathlib.Path().glob("test_*.py"):
    for function in vars(importlib.import_module(file.stem)).values():
        for mark in getattr(function, "pytestmark", []):
            for given in mark.args[1] if mark.name == "parametrize" else []:
                parameters = given.values if isinstance(given, ParameterSet) else given
                for value in parameters if isinstance(parameters, tuple) else [parameters]:
                    if isinstance(value, dict) and "expected" in value:
                        used.add((value["file"], value["name"]))
print(json.dumps(sorted(used)))
"""


def used_cases(folder):
    """File and name of the cases that the golden tests are parametrised with; asked of a fresh process."""
    here = os.environ | {"PYTHONPATH": str(GOLDEN.parent), "LTBENCH_GOLDEN": str(folder)}
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(program, cwd=GOLDEN, env=here, capture_output=True, text=True, check=True)
    return {tuple(pair) for pair in json.loads(done.stdout)}


def files_of_cases():
    files = {path.stem: json.loads(path.read_text()) for path in GOLDEN.glob("*.json")}
    return {stem: file for stem, file in files.items() if "cases" in file}  # same_weights.json holds whole runs


def test_every_golden_case_is_used():
    there = {(stem, case["name"]) for stem, file in files_of_cases().items() for case in file["cases"]}
    assert sorted(there - used_cases(GOLDEN)) == sorted(LEFT_OUT)


def test_cases_of_another_folder_are_chosen_by_their_options(tmp_path):
    """Not by their names; a file may be missing there."""
    there = set()
    for stem, file in files_of_cases().items():
        kept = [case for case in file["cases"] if (stem, case["name"]) not in LEFT_OUT and stem != "pgd"]
        renamed = [{**case, "name": f"other {i}"} for i, case in enumerate(kept)]
        there |= {(stem, case["name"]) for case in renamed}
        (tmp_path / f"{stem}.json").write_text(json.dumps({**file, "cases": renamed}))
    (tmp_path / "pgd.json").unlink()
    assert used_cases(tmp_path) == there
