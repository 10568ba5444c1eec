"""Runs with options keep their keys and their weights; those without any are trained in test_conformance.py."""

from __future__ import annotations

import pytest
import torch
from same_weights import BEFORE, PLAIN, require_same

import ltrobust_bench as lt


def name_of(run):
    return "-".join(str(value) for value in run["request"].values())


@pytest.mark.parametrize("before", [run for run in BEFORE["runs"] if run not in PLAIN.values()], ids=name_of)
def test_a_run_trains_the_weights_that_it_always_did(before, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = lt.train(dataset="digits-lt", protocol="smoke", device="cpu", runs_dir=tmp_path, **before["request"])
    finally:
        torch.set_num_threads(threads)
    require_same(result, before)
