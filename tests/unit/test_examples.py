"""The programs in ``examples`` do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def run(name, *arguments, cwd):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def model_of_ones_own(place):
    lines = run("evaluate_your_model", cwd=place).splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        [name, "balanced"] for name in ("clean", "fgsm", "pgd-5", "union")
    ]
    assert lines[-1].startswith("per class, worst case of all attacks: [")


def extra_training_data(place):
    said = run("extra_training_data", "made", cwd=place)
    kept = sorted((ROOT / "results" / "extra").glob("*.toml"))
    assert [path.stem for path in kept] == ["averages", "left-out"]
    for path in kept:
        assert (place / "made" / path.name).read_text() == path.read_text(), "the same images have the same digest"
        assert f"--extra-data made/{path.name}" in said


TRIED = {"evaluate_your_model": model_of_ones_own, "extra_training_data": extra_training_data}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_does_what_it_says(name, tmp_path):
    TRIED[name](tmp_path)
