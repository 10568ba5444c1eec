"""One run on two processes (gloo, on a CPU) is the run of one."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from two_ranks import CASES

from ltrobust_bench.api import Network
from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.cli.devices import start
from ltrobust_bench.compute import ranks
from ltrobust_bench.compute.sharing import _prepare, share
from ltrobust_bench.errors import UsageError

WORK = Path(__file__).with_name("two_ranks.py")
TOLERANCE = 1e-4
"""Of every weight, statistic, loss, remembered number and logit, as a share of the largest of its tensor. Sums are
rounded otherwise, by about 1e-7; a sign of a gradient that is all but 0 can turn once in a while."""
OF_OTHERS = {"bf16": 2e-2, "a whole run in float64": 1e-9}
"""Numbers with 8 bits of mantissa; with 53, in which 21 steps amplify rounding to no more."""


OF_EACH_KIND = ["at", "reat", "crt", "hat", "both plug-ins", "the folded copy", "a whole run in float64"]
"""Cases that are looked at every time: a loss, memories, a base, a companion, plug-ins, copies."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found of some cases, of both in the end."""

    @cache
    def of(*cases):
        folder = tmp_path_factory.mktemp("ranks")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")
            assert start([sys.executable, str(WORK), str(folder), *cases], 2) == 0
        return json.loads((folder / "found.json").read_text())

    return of


@pytest.mark.parametrize("case", OF_EACH_KIND)
def test_two_ranks_train_what_one_process_trains(found, case):
    assert found(*OF_EACH_KIND)[case] < OF_OTHERS.get(case, TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_every_method_and_plugin_as_one_process_does(found, case):
    assert found(*CASES)[case] < OF_OTHERS.get(case, TOLERANCE)


def test_every_method_and_every_plugin_is_among_them():
    assert {case["method"] for case in CASES.values()} == set(methods.names())
    assert {slug for case in CASES.values() for slug in case.get("plugins", [])} == set(plugins.names())


def test_parts_of_a_batch_are_all_of_it(monkeypatch):
    for count in (1, 2, 3, 8):
        for images in (0, 1, 2, 7, 8, 64):
            parts = []
            for rank in range(count):
                monkeypatch.setattr(ranks, "_here", ranks._Place(rank, count))
                parts += range(images)[ranks.part(images)]
            assert parts == list(range(images))


def test_alone_nothing_is_touched():
    network = Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), nn.Linear(2, 2))
    share(network)
    assert type(network.backbone[1]) is nn.BatchNorm2d
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert ranks.from_first(lambda: 3) == 3 and ranks.first() and ranks.count() == 1 and ranks.speaks()


class OwnNorm(nn.BatchNorm2d):
    pass


@pytest.mark.parametrize(("module", "said"), [(nn.Dropout(0.1), "random numbers"), (OwnNorm(3), "OwnNorm")])
def test_what_several_ranks_would_compute_otherwise_is_refused(module, said):
    with pytest.raises(UsageError, match=said):
        _prepare(module)


def test_a_gpu_for_each_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    ranks.require_devices(2, torch.device("cuda"))
    ranks.require_devices(8, torch.device("cpu"))
    with pytest.raises(UsageError, match="4 devices were asked for, but torch sees 2 CUDA devices here"):
        ranks.require_devices(4, torch.device("cuda"))
    with pytest.raises(UsageError, match="--device cuda:1 names one; use --device cuda"):
        ranks.require_devices(2, torch.device("cuda:1"))
