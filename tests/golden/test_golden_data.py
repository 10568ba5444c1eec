"""Splits and learning rates agree with the official ones."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import cases, close

from ltrobust_bench.cards import methods
from ltrobust_bench.data.split import index_sha256, long_tailed_counts, long_tailed_indices
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.protocol.schedule import Multistep, OneCycle, Piecewise, RobalCompound

RECIPES = {m.replace("-", "_"): m for m in ("reat", "at-bsl", "trades", "mart", "taet")}


def rates(schedule, base, epochs, steps=1):
    return [schedule.rate(base, i / steps, epochs, 1 / steps) for i in range(epochs * steps)]


@pytest.mark.parametrize("case", [c for r in RECIPES for c in cases("lr_schedules", recipe=r)])
def test_card_schedule(case):
    card = methods.get(RECIPES[case["options"]["recipe"]]).card
    epochs = case["options"]["epochs"]
    assert card.recipe["epochs"] == epochs
    close(case, "lr", rates(Multistep(**card.recipe["schedule"]), case["options"]["lr"], epochs))


@pytest.mark.parametrize("case", cases("lr_schedules", recipe="robal", first_epoch=1))
def test_robal_compound_schedule(case):
    o = case["options"]
    schedule = RobalCompound(
        kind="robal_compound", milestones=o["lr_decline"], of=o["epochs"], warmup_epochs=o["warmup_epochs"]
    )
    close(case, "lr", rates(schedule, o["lr"], o["epochs"]))
    if o["warmup_epochs"] == 0 and o["epochs"] == 80:
        for slug in ("at", "robal"):
            assert RobalCompound(**methods.get(slug).card.recipe["schedule"]) == schedule


MILESTONES = {"trades_awp": [99, 149], "robustlt_awp": [100, 150], "robustlt_reat": [60, 75]}  # finished epochs


@pytest.mark.parametrize("case", [c for c in cases("lr_schedules") if c.id in MILESTONES])
def test_multistep_schedule(case):
    o = case["options"]
    schedule = Multistep(kind="multistep", milestones=MILESTONES[case["name"]], of=o["epochs"])
    close(case, "lr", rates(schedule, o["lr"], o["epochs"]))


@pytest.mark.parametrize("case", cases("lr_schedules", config="cifar10lf/pgdat_cifar10.yaml"))
def test_protocol_schedule_is_the_shared_recipe(case):
    """The fixed track decays after epochs 75 and 90, as RobustLT's repository does for AT."""
    recipe = load_protocol("ltr-linf-v1").training
    assert recipe.epochs == case["options"]["epochs"]
    close(case, "lr", rates(recipe.schedule, recipe.lr, recipe.epochs))


LATER = {
    "mail": Multistep(kind="multistep", milestones=[75, 90, 100], of=120),
    "seat": Piecewise(kind="piecewise", points=[0, 40, 80, 120], factors=[1.0, 1.0, 0.1, 0.01], of=120, each="epoch"),
    "faal_prn": Multistep(kind="multistep", milestones=[1], of=2),
    "frl": Multistep(kind="multistep", milestones=[40, 80], of=40),
    "hat": OneCycle(kind="onecycle", rise=0.25),
}


@pytest.mark.parametrize("case", cases("lr_schedules_more"))
def test_schedules_of_later_methods(case):
    """The rates; what else those loops switch by epoch (HAT's momentum, FRL's multiplier) is the methods' own."""
    o, schedule = case["options"], LATER[case["options"]["recipe"]]
    assert schedule.each == o.get("per", "epoch")
    close(case, "lr", rates(schedule, o["lr"], o["epochs"], o.get("steps_per_epoch", 1)))


@pytest.mark.parametrize("case", cases("splits", function="ldam_convention"))
def test_long_tailed_split(case):
    ratio = 1 / case["options"]["imbalance_ratio"]
    expected = case["expected"]
    classes = len(expected["counts"])
    if "labels" in case["inputs"]:
        labels = np.array(case["inputs"]["labels"])
    else:
        # Only the counts are checked without the data set; tests/unit/test_data.py checks the indices.
        n_max = {"cifar10": 5000, "cifar100": 500}[case["options"]["label_set"]]
        assert long_tailed_counts(n_max, classes, ratio, "exp") == expected["counts"]
        return
    counts = long_tailed_counts(len(labels) // classes, classes, ratio, "exp")
    assert counts == expected["counts"]
    assert long_tailed_indices(labels, counts).tolist() == expected["indices"]


def test_index_digest_is_of_little_endian_int64():
    assert index_sha256(np.array([1, 2])) == index_sha256(np.array([1, 2], dtype=">i4"))
