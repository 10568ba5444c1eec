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
    o, card = case["options"], methods.get(RECIPES[case["options"]["recipe"]]).card
    assert card.recipe["epochs"] == o["epochs"]
    schedule = Multistep(**card.recipe["schedule"] | ({"gamma": o["gamma"]} if "gamma" in o else {}))
    close(case, "lr", rates(schedule, o["lr"], o["epochs"]))


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


MILESTONES = {  # finished epochs, by the recipe or the first word of RobustLT's file
    "trades_awp": [99, 149],
    "pgdat": [75, 90],
    "awp": [100, 150],
    "robal": [60, 75],
    "reat": [60, 75],
    "atbsl": [75, 90],
    "taet": [75, 90],
}


@pytest.mark.parametrize("case", [c for r in ("trades_awp", "robustlt") for c in cases("lr_schedules", recipe=r)])
def test_multistep_schedule(case):
    o = case["options"]
    named = o["config"].split("/")[-1].split("_")[0] if "config" in o else o["recipe"]
    schedule = Multistep(kind="multistep", milestones=MILESTONES[named], of=o["epochs"])
    close(case, "lr", rates(schedule, o["lr"], o["epochs"]))


@pytest.mark.parametrize("case", cases("lr_schedules", config="cifar10lf/pgdat_cifar10.yaml"))
def test_protocol_schedule_is_the_shared_recipe(case):
    """The fixed track decays after epochs 75 and 90, as RobustLT's repository does for AT."""
    recipe = load_protocol("ltr-linf-v1").training
    assert recipe.epochs == case["options"]["epochs"]
    close(case, "lr", rates(recipe.schedule, recipe.lr, recipe.epochs))


def seat(epochs, last):
    points = [0, epochs // 3, epochs * 2 // 3, epochs]
    return Piecewise(kind="piecewise", points=points, factors=[1.0, 1.0, 0.1, last], of=epochs, each="epoch")


LATER = {  # the schedule, by the options of the case
    "mail": lambda o: Multistep(kind="multistep", milestones=[75, 90, 100], of=o["epochs"]),
    "seat": lambda o: seat(o["epochs"], 0.01 if o["arch"].startswith("resnet") else 0.05),
    "faal_prn": lambda o: Multistep(kind="multistep", milestones=[1], of=o["epochs"]),
    "frl": lambda o: Multistep(kind="multistep", milestones=[40, 80], of=o["epochs"]),
    "hat": lambda o: OneCycle(kind="onecycle", rise=0.25, momentum=[0.95, 0.85]),
}


@pytest.mark.parametrize("case", cases("lr_schedules_more"))
def test_schedules_of_later_methods(case):
    """The rates, and HAT's momentum; what FRL's loop switches by epoch is the method's own."""
    o, schedule = case["options"], LATER[case["options"]["recipe"]](case["options"])
    assert schedule.each == o.get("per", "epoch")
    steps = o.get("steps_per_epoch", 1)
    close(case, "lr", rates(schedule, o["lr"], o["epochs"], steps))
    if "momentum" in case["expected"]:
        found = [schedule.momentum_at(i / steps, o["epochs"], 1 / steps) for i in range(o["epochs"] * steps)]
        close(case, "momentum", found)


@pytest.mark.parametrize("case", cases("splits", function="ldam_convention"))
def test_long_tailed_split(case):
    ratio, profile = 1 / case["options"]["imbalance_ratio"], case["options"]["profile"]
    expected = case["expected"]
    classes = len(expected["counts"])
    if "labels" in case["inputs"]:
        labels = np.array(case["inputs"]["labels"])
    else:
        # Only the counts are checked without the data set; tests/unit/test_data.py checks the indices.
        n_max = {"cifar10": 5000, "cifar100": 500}[case["options"]["label_set"]]
        assert long_tailed_counts(n_max, classes, ratio, profile) == expected["counts"]
        return
    counts = long_tailed_counts(len(labels) // classes, classes, ratio, profile)
    assert counts == expected["counts"]
    assert long_tailed_indices(labels, counts).tolist() == expected["indices"]


def test_index_digest_is_of_little_endian_int64():
    assert index_sha256(np.array([1, 2])) == index_sha256(np.array([1, 2], dtype=">i4"))
