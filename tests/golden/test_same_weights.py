"""Runs keep their keys and their weights, bit for bit, while the package around them changes.

The weights were trained by the code of commit ad16ffc (``same_weights.json`` says how). Other processors and other
versions of torch round differently: there the losses must agree to 2 %, and only here the digests.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import ltrobust_bench as lt
from ltrobust_bench.machine import device_name
from ltrobust_bench.training import checkpoint as ckpt

BEFORE = json.loads(Path(__file__).with_name("same_weights.json").read_text(encoding="utf-8"))
HERE = [device_name("cpu"), torch.__version__, torch.backends.cpu.get_cpu_capability()]


def name_of(run):
    return "-".join(str(value) for value in run["request"].values())


@pytest.mark.parametrize("before", BEFORE["runs"], ids=name_of)
def test_a_run_trains_the_weights_that_it_always_did(before, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = lt.train(dataset="digits-lt", protocol="smoke", device="cpu", runs_dir=tmp_path, **before["request"])
    finally:
        torch.set_num_threads(threads)
    assert result.model_path.parent.name == before["run_folder"], "the run key changed"
    assert [row["loss"] for row in result.history] == pytest.approx(before["loss"], rel=0.02)
    if BEFORE["machine"] == HERE:
        assert ckpt.read_model(result.model_path)[1]["weights_sha256"] == before["weights_sha256"]
