"""``ltbench doctor``: what a bug report needs, and each problem found as one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from command_line import call

from ltrobust_bench.doctor import system
from ltrobust_bench.doctor.ask_torch import answers
from ltrobust_bench.machine import version_of

SECTIONS = ["package", "versions", "system", "torch", "extensions", "folders", "environment", "data", "problems"]


@pytest.fixture
def healthy(tmp_path, monkeypatch):
    """A reader's folder on a machine without faults; torch is asked here, for speed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(system, "_ask_torch", lambda: {**answers(), "threads": 1})
    monkeypatch.setattr(system, "_driver", lambda: "")
    return tmp_path


def problems(capsys, *arguments):
    """The problems of a machine that has some."""
    code, out, err = call(capsys, "doctor", "--json", *arguments)
    found = json.loads(out)["problems"]
    assert code == (1 if found else 0) and err == "" and all("\n" not in line for line in found)
    return found


def test_a_sound_machine(capsys, healthy):
    code, out, _ = call(capsys, "doctor")
    assert code == 0 and out.endswith("problems: none\n"), out
    headings = [line[1:-1] for line in out.splitlines() if line.startswith("[")]
    assert [*headings, "problems"] == SECTIONS
    code, out, _ = call(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == 0 and list(found) == SECTIONS
    assert found["versions"]["numpy"] == version_of("numpy") and found["torch"]["devices"].startswith("cpu")
    assert found["data"]["digits-lt"].endswith("the known split") and found["data"]["cifar10-lt"] == "not there"
    assert "made when needed" in found["folders"]["runs"]
    assert list(healthy.iterdir()) == [], "it leaves nothing behind"


def test_real_data_is_compared_with_what_is_known(capsys, healthy, cifar10_folder):
    _, out, _ = call(capsys, "doctor", "--json", "--data-dir", cifar10_folder)
    data = json.loads(out)["data"]
    assert data["cifar10-lt"].endswith("the known split") and data["cifar10-lt-perm"].endswith("the known split")


def test_damaged_and_missing_data(capsys, healthy, monkeypatch):
    (healthy / "data" / "cifar-10-batches-py").mkdir(parents=True)
    found = problems(capsys, "--data-dir", "data")
    assert {line.partition(" ")[0] for line in found} == {"cifar10-lt", "cifar10-lt-perm"}
    assert all("ltbench data prepare" in line for line in found)
    assert problems(capsys, "--data-dir", "data", "--no-data") == []
    monkeypatch.setenv("LTBENCH_DATA", "nowhere")
    (line,) = problems(capsys)
    assert "there is no data folder nowhere" in line


def test_data_that_is_other_data(capsys, healthy, monkeypatch):
    """One image more than scikit-learn's digits: another split, though every file can be read."""
    from ltrobust_bench.doctor import data

    def other(*arguments):
        known = data_known(*arguments)
        return type(known)(known.train_counts, known.test_counts, "0" * 64, known.test_sha256)

    data_known = data.known_split
    monkeypatch.setattr(data, "known_split", other)
    (line,) = problems(capsys)
    assert line.startswith("digits-lt has another split than it must have")


def test_folders_that_cannot_be_written_and_full_disks(capsys, healthy, monkeypatch):
    (healthy / "file").write_text("")
    found = problems(capsys, "--runs-dir", "file/runs", "--no-data")
    assert len(found) == 1 and found[0].startswith("runs cannot be written to file/runs (") and "--runs-dir" in found[0]
    monkeypatch.setattr(system, "LITTLE", 1 << 60)
    found = problems(capsys, "--no-data")
    assert len(found) == 4 and all("are free in" in line for line in found)


def test_variables_that_were_mistyped(capsys, healthy, monkeypatch):
    monkeypatch.setenv("LTBENCH_RESULT", "x")
    (line,) = problems(capsys, "--no-data")
    assert "LTBENCH_RESULT means nothing here: did you mean LTBENCH_RESULTS?" in line


def test_packages_that_are_missing_or_too_old(capsys, healthy, monkeypatch):
    from ltrobust_bench.doctor import packages

    monkeypatch.setattr(packages, "version_of", lambda name: {"numpy": "1.20", "scipy": None}.get(name, "999"))
    found = problems(capsys, "--no-data")
    assert any(line.startswith("numpy is 1.20") and "pip install 'numpy>=" in line for line in found)
    assert any(line.startswith("scipy is not installed: pip install 'scipy>=") for line in found)


@pytest.mark.parametrize(
    ("said", "driver", "words"),
    [
        ({"threads": 10**6}, "", "set OMP_NUM_THREADS"),
        ({"gpus": {}}, "570.1", "there is a GPU (driver 570.1)"),
        ({"faults": {"cpu": "", "cuda:0": "no kernel image"}}, "", "does not compute on cuda:0 (no kernel image)"),
    ],
)
def test_torch_that_does_not_fit_the_machine(capsys, healthy, monkeypatch, said, driver, words):
    whole = {**answers(), "threads": 1, **said}
    monkeypatch.setattr(system, "_ask_torch", lambda: whole)
    monkeypatch.setattr(system, "_driver", lambda: driver)
    (line,) = problems(capsys, "--no-data")
    assert words in line


@pytest.mark.parametrize(
    ("torch", "said"),
    [("raise OSError('libcudart.so.13: cannot open shared object file')", "libcudart.so.13: cannot open"),
     ("import os; os.abort()", "Python ended with code -6")],
)  # fmt: skip
def test_a_broken_torch_is_a_finding(tmp_path, torch, said):
    (tmp_path / "torch.py").write_text(torch)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", "from ltrobust_bench.cli.main import main; main()", "doctor", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    found = json.loads(done.stdout)
    assert any(line.startswith("torch cannot be used (") and said in line for line in found["problems"])
    assert found["data"]["digits-lt"] == "there, not read" and found["versions"]["numpy"]


def test_a_part_that_cannot_be_looked_at_is_a_finding(capsys, healthy, monkeypatch):
    from ltrobust_bench.doctor import packages

    def broken(found):
        raise ImportError("numpy was compiled for\nanother machine")

    monkeypatch.setattr(packages, "versions", broken)
    (line,) = problems(capsys, "--no-data")
    assert line.startswith("versions cannot be looked at (ImportError: numpy was compiled for another machine)")
