"""Runs on several processes, stopped from outside and continued by another number of them; started by torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ltrobust_bench.records.io import read_record
from ltrobust_bench.verbs import load_model

pytestmark = pytest.mark.slow
RUN = ["run", "--method", "reat", "--dataset", "digits-lt", "--protocol", "smoke", "--device", "cpu"]
RUN += ["--threads", "1", "--epochs", "20", "--set", "lr=0.05", "--plugin", "awp"]
ALONE = [sys.executable, "-m", "ltrobust_bench"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
APART = 0.05
"""By so much an accuracy on 100 images may differ: in float32 rounding turns the sign of some gradients, and training
amplifies it. In float64 a whole run is the same (tests/unit/test_ranks.py)."""


def program(*words, cwd):
    return subprocess.Popen([*words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert program(*ALONE, *RUN, cwd=folder).wait(300) == 0
    return folder


def same(one, other):
    first, second = (read_record(next(folder.glob("runs/*/record.json"))) for folder in (one, other))
    assert first.bits("clean").mean() > 0.5
    assert all(abs(first.bits(name).mean() - second.bits(name).mean()) <= APART for name in first.rows)
    assert first.cost.training.forwards == second.cost.training.forwards
    return second


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(("begun_by", "ended_by"), [(2, 1), (1, 2), (3, 2)])
def test_stopped_and_continued_by_another_number(tmp_path, alone, how, begun_by, ended_by):
    stopped = program(*ALONE, *RUN, "--devices", str(begun_by), cwd=tmp_path)
    limit = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/checkpoint-*")):
        assert time.monotonic() < limit and stopped.poll() is None
        time.sleep(0.01)
    ranks = subprocess.run(
        ["pgrep", "-P", str(stopped.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    assert len(ranks) == (0 if begun_by == 1 else begun_by)
    if how == signal.SIGKILL and ranks:
        os.kill(int(ranks[-1]), how)
    else:
        stopped.send_signal(how)
    _, err = stopped.communicate(timeout=120)
    assert "Traceback" not in err and len(err.strip().splitlines()) <= 1
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    continued = program(*ALONE, *RUN, "--devices", str(ended_by), cwd=tmp_path)
    out, err = continued.communicate(timeout=300)
    assert continued.returncode == 0 and "going on after epoch" in out, err
    assert same(alone, tmp_path).environment.devices == ended_by


def test_torchrun(tmp_path, alone):
    begun = program(*TORCHRUN, "2", "-m", "ltrobust_bench", *RUN, cwd=tmp_path)
    out, err = begun.communicate(timeout=300)
    assert begun.returncode == 0, err
    assert out.count("clean accuracy") == 1
    record = same(alone, tmp_path)
    assert record.environment.devices == 2
    (folder,) = (alone / "runs").iterdir()
    assert load_model(folder).run == record.run
    (own,) = tmp_path.glob("runs/*/record.json")
    own.unlink()
    evaluated = program(*ALONE, "eval", str(own.parent), "--device", "cpu", "--devices", "2", cwd=tmp_path)
    _, err = evaluated.communicate(timeout=300)
    assert evaluated.returncode == 0, err
    assert read_record(own).result.digest == record.result.digest


def test_an_error_of_all_ranks_is_said_once(tmp_path):
    unknown = ["--method", "raet", "--dataset", "digits-lt", "--device", "cpu", "--devices", "2"]
    refused = program(*ALONE, "run", *unknown, cwd=tmp_path)
    _, err = refused.communicate(timeout=120)
    (line,) = err.strip().splitlines()
    assert refused.returncode == 2 and line.startswith("Error: unknown method 'raet'")
