"""Splits and learning rates agree with the official ones."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import cases, close

from ltrobust_bench.cards import methods
from ltrobust_bench.data.split import index_sha256, long_tailed_counts, long_tailed_indices
from ltrobust_bench.protocol import Schedule, load_protocol
from ltrobust_bench.training.schedule import learning_rate

RECIPES = {m.replace("-", "_"): m for m in ("reat", "at-bsl", "trades", "mart", "taet")}


def rates(schedule, base, epochs):
    return [learning_rate(base, schedule, e, epochs) for e in range(1, epochs + 1)]


@pytest.mark.parametrize("case", [c for r in RECIPES for c in cases("lr_schedules", recipe=r)])
def test_card_schedule(case):
    card = methods.get(RECIPES[case["options"]["recipe"]]).card
    epochs = case["options"]["epochs"]
    assert card.recipe["epochs"] == epochs
    close(case, "lr", rates(Schedule(**card.recipe["schedule"]), case["options"]["lr"], epochs))


@pytest.mark.parametrize("case", cases("lr_schedules", recipe="robal", first_epoch=1))
def test_robal_compound_schedule(case):
    o = case["options"]
    schedule = Schedule(
        kind="robal_compound", milestones=o["lr_decline"], of=o["epochs"], warmup_epochs=o["warmup_epochs"]
    )
    close(case, "lr", rates(schedule, o["lr"], o["epochs"]))
    if o["warmup_epochs"] == 0 and o["epochs"] == 80:
        for slug in ("at", "robal"):
            assert Schedule(**methods.get(slug).card.recipe["schedule"]) == schedule


MILESTONES = {"trades_awp": [99, 149], "robustlt_awp": [100, 150], "robustlt_reat": [60, 75]}  # finished epochs


@pytest.mark.parametrize("case", [c for c in cases("lr_schedules") if c.id in MILESTONES])
def test_multistep_schedule(case):
    o = case["options"]
    schedule = Schedule(kind="multistep", milestones=MILESTONES[case["name"]], of=o["epochs"])
    close(case, "lr", rates(schedule, o["lr"], o["epochs"]))


@pytest.mark.parametrize("case", cases("lr_schedules", config="cifar10lf/pgdat_cifar10.yaml"))
def test_protocol_schedule_is_the_shared_recipe(case):
    """The fixed track decays after epochs 75 and 90, as RobustLT's repository does for AT."""
    recipe = load_protocol("ltr-linf-v1").training
    assert recipe.epochs == case["options"]["epochs"]
    close(case, "lr", rates(recipe.schedule, recipe.lr, recipe.epochs))


@pytest.mark.parametrize("case", cases("splits", function="ldam_convention"))
def test_long_tailed_split(case):
    ratio = 1 / case["options"]["imbalance_ratio"]
    expected = case["expected"]
    classes = len(expected["counts"])
    if "labels" in case["inputs"]:
        labels = np.array(case["inputs"]["labels"])
    else:
        # Only the counts are checked without the data set; test_real_cifar.py checks the indices.
        n_max = {"cifar10": 5000, "cifar100": 500}[case["options"]["label_set"]]
        assert long_tailed_counts(n_max, classes, ratio, "exp") == expected["counts"]
        return
    counts = long_tailed_counts(len(labels) // classes, classes, ratio, "exp")
    assert counts == expected["counts"]
    assert long_tailed_indices(labels, counts).tolist() == expected["indices"]


def test_index_digest_is_of_little_endian_int64():
    assert index_sha256(np.array([1, 2])) == index_sha256(np.array([1, 2], dtype=">i4"))
