"""``--devices``: a whole run on two processes, what is refused, and what a rank that ends leaves behind."""

from __future__ import annotations

import sys

import pytest
import torch
from command_line import FAST, call, refused

from ltrobust_bench.cli.devices import start
from ltrobust_bench.records.io import read_record
from ltrobust_bench.training import checkpoint as ckpt

RUN = ["run", "--method", "reat", "--dataset", "digits-lt", *FAST, "--threads", 1]
WHOLE = [*RUN, "--epochs", 6, "--set", "lr=0.02"]
FLIPPED = 2
"""Verdicts, of 300, that may be others: weights differ by rounding, and some images lie on the edge."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_whole_run_on_two_devices_has_the_result_of_one(capfd, here):
    assert call(capfd, *WHOLE, "--runs-dir", "alone")[0] == 0
    code, out, err = call(capfd, *WHOLE, "--runs-dir", "together", "--devices", 2)
    assert code == 0 and err == ""
    assert out.count("clean accuracy") == 1 and out.count("record: together") == 1, "only the first rank speaks"
    (one,), (two,) = here.glob("alone/*/record.json"), here.glob("together/*/record.json")
    first, second = read_record(one), read_record(two)
    assert (first.environment.devices, second.environment.devices) == (1, 2)
    assert second.run == first.run and one.parent.name == two.parent.name
    assert second.cost.training.forwards == first.cost.training.forwards
    assert sum(int((first.bits(name) != second.bits(name)).sum()) for name in first.rows) <= FLIPPED
    assert first.bits("clean").mean() > 0.2, "it has learned something"
    weights, others = (ckpt.read_model(path.parent)[0] for path in (one, two))
    for name, value in weights.items():
        assert torch.allclose(value.double(), others[name].double(), rtol=1e-2, atol=1e-2), name
    assert sorted(p.name for p in two.parent.iterdir()) == sorted(p.name for p in one.parent.iterdir())


def test_devices_that_are_not_there(capsys, here, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "torch sees 2 CUDA devices here" in refused(capsys, *RUN, "--device", "cuda", "--devices", 4)
    assert "--device cuda:0 names one" in refused(capsys, *RUN, "--device", "cuda:0", "--devices", 2)
    assert "0 is not in the range" in refused(capsys, *RUN, "--devices", 0)
    assert list(here.iterdir()) == []


DIES = """
import os, signal, sys, torch
from ltrobust_bench.cli.main import main
from ltrobust_bench.training.trainer import Session
epoch = Session._epoch
def until_the_second(self, number, epochs):
    if number == 2 and os.environ["RANK"] == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    epoch(self, number, epochs)
Session._epoch = until_the_second
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_takes_the_other_down_with_one_line(capfd, here, rank):
    command = [sys.executable, "-c", DIES, str(rank), *map(str, RUN), "--epochs", "3", "--limit-train", "40"]
    assert start(command, 2) == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line == "Error: the process of another device ended; the same command goes on from the last checkpoint."
    (folder,) = here.glob("runs/*")
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-0001"]
