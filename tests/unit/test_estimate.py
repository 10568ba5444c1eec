"""What is said of the cost before work starts is what the work is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ltrobust_bench.attacks.apgd_ce import APGDCE
from ltrobust_bench.attacks.autoattack import AutoAttack
from ltrobust_bench.attacks.registry import standard_attacks
from ltrobust_bench.data.loader import DeviceData
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.training.estimate import _timed, estimate, evaluation_cost
from ltrobust_bench.training.trainer import train_plan

CPU = torch.device("cpu")
STANDARD = AutoAttack.standard()


def test_autoattack_costs_what_its_four_attacks_cost_alone():
    alone = {name: attack.passes(10) for name, attack in standard_attacks().items()}
    assert alone["apgd-ce"] == alone["apgd-dlr"] == 100 and alone["apgd-t"] == alone["fab-t"] == 900
    assert alone["square"] == pytest.approx(5000 / 3)
    parts = [alone[name] for name in ("apgd-ce", "apgd-t", "fab-t", "square")]
    assert STANDARD.passes(10) == pytest.approx(sum(parts))
    assert STANDARD.passes(3) == pytest.approx(100 * (1 + 2 * 2) + 5000 / 3)


class Sized(nn.Module):
    """Notes how many images it is given; no more than a few fit."""

    def __init__(self, most):
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append(len(x))
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize("fits", [1000, 4])
def test_measuring_an_attack_passes_no_larger_batch_than_the_attack(fits):
    """A fast network would be given the whole test set at once, which no GPU can hold."""
    data = DeviceData.of(np.zeros((1000, 1, 8, 8), np.uint8), np.zeros(1000, np.int64), CPU)
    model = Sized(fits)
    said = evaluation_cost(model, data, 10, [APGDCE.standard()], batch_size=100)
    assert said.startswith("40,000 images forward and backward") and max(model.seen) == min(100, fits)


@pytest.mark.parametrize("most", [1, 2, 100])
def test_the_first_pass_of_each_size_is_not_timed(most):
    """cuDNN looks for its algorithms in it, for seconds."""
    seen = []

    def work(images):
        seen.append(images)
        return images * 1e-3 if images in seen[:-1] else 30.0

    taken, images = _timed(work, most)
    assert images == most and taken == pytest.approx(most * 1e-3)


def test_of_several_timings_the_fastest_counts():
    """Whatever else the machine does makes some of them longer."""
    seconds = iter([9.0, 0.9, 0.7, 0.8])
    assert _timed(lambda images: next(seconds), 2) == (0.7, 2)


def test_a_stall_of_the_machine_on_two_images_is_not_taken_for_their_cost():
    """Under load one was; minutes of work were announced as days."""
    calls = []

    def work(images):
        calls.append(images)
        return 60.0 if len(calls) == 2 else images * 1e-3

    assert _timed(work, 128) == (pytest.approx(0.128), 128)


@pytest.mark.parametrize("method", ["at", "erm", "taet"])
def test_epochs_without_an_attack_cost_one_pass(tmp_path, method):
    """Estimated and counted images differ by last batches that are not full."""
    plan = make_plan(method, "digits-lt", protocol="smoke", epochs=4, limit_train=128)
    spent = train_plan(plan, tmp_path, CPU).cost
    assert estimate(plan, CPU).training_images == pytest.approx(spent.backwards, rel=0.2)
