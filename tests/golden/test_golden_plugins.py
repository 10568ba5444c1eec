"""Plug-ins agree with the official code: AWP on AT and TRADES, RobustLT on six hosts, and RobustLT with AWP."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ltrobust_bench.baselines.robustlt import method as robustlt
from test_golden_steps import build, run
from tiny import cases, close, shipped

from ltrobust_bench.api import TrainInfo, linear
from ltrobust_bench.cards import plugins
from ltrobust_bench.training.build import build_plugins


def plugged(case, **options):
    """Plug-ins named by their options, e.g. ``awp={"gamma": 0.01}``."""
    counts = torch.tensor(case["inputs"].get("counts", [1.0]), dtype=torch.float64)
    resolved = {
        f"{slug}.{name}": value
        for slug, given in options.items()
        for name, value in plugins.get(slug).card.resolve_options("paper", given).items()
    }
    return build_plugins(list(options), resolved, TrainInfo(counts, "cifar10-lt", 100))


@pytest.mark.proves("robustlt")
@pytest.mark.parametrize("case", cases("robustlt_budgets"))
def test_robustlt_budgets(case):
    o = case["options"]
    factors = robustlt.radius_factors(torch.tensor(case["inputs"]["counts"], dtype=torch.float64), o["alpha"])
    close(case, "epsilon_max", o["epsilon"] * factors)
    by_epoch = torch.stack([factors * robustlt.ramp(e, o["num_epochs"], o["beta"]) for e in o["epochs"]])
    close(case, "epsilon", o["epsilon"] * by_epoch)
    close(case, "step_size", o["step_size"] * by_epoch)


def test_robustlt_on_balanced_data_changes_nothing():
    assert robustlt.radius_factors(torch.full((5,), 7.0), 0.3).tolist() == [1.0] * 5


@pytest.mark.proves("awp")
@pytest.mark.parametrize("case", cases("awp_step"))
def test_awp_step(case):
    o = case["options"]
    awp = plugged(case, awp={"gamma": o["gamma"]})
    if o["bn_mode"] == "none":
        case = {**case, "options": {**o, "bn_mode": "eval", "start": "uniform"}}
    case["options"]["start"] = "uniform"
    train = o["bn_mode"] == "train"
    attacked = ["attack"] * (o["num_steps"] + 1) if train else []
    after = ["nat"] if o["clean_metric_forward"] else []  # for its training metrics, with the updated weights
    run(case, build("at", case), ["adv"], after, plugins=awp, attacked=attacked, looked_at=train)


@pytest.mark.proves("awp")
@pytest.mark.parametrize("case", cases("trades_awp_step"))
def test_trades_awp_step(case):
    awp = plugged(case, awp={"gamma": case["options"]["gamma"]})
    run(case, build("trades", case, beta=case["options"]["beta"]), ["adv", "nat", "nat"], plugins=awp)


ROBAL = {"m": "m_0", "s": "s", "tau_m": "tau_m", "tau_b": "tau_b", "beta": "beta"}
BASES = {
    # official name: (method, its options, names of those that a case gives, forwards before and after the update)
    "pgdat": ("at", {}, {}, ["adv"], ["adv", "nat"]),
    "atbsl": ("at-bsl", {}, {"tau_b": "tau"}, ["adv", "nat"], ["adv", "nat"]),
    "reat": ("reat", {"count_at": "after"}, {}, ["adv"], ["adv", "nat"]),
    "robal": ("robal", {"variant": "R"}, ROBAL, ["adv", "nat"], ["adv", "nat"]),
    "taet": ("taet", {}, {"ce_epochs": "first_harl_epoch"}, ["adv", "nat"], ["nat", "adv"]),
    "awp": ("at", {}, {}, ["adv"], ["adv", "nat"]),
}
PLUGINS = {
    "robustlt": {"robustlt_alpha": "alpha", "robustlt_beta": "beta"},
    "awp": {"awp_gamma": "gamma"},
}


def plugged_in(case):
    return case.values[0]["options"]["official_name"].startswith("robustlt_")


def play(case, **robustlt_options):
    o, official = case["options"], dict(case["options"]["official_options"])

    def given(names):
        return {names[key]: official.pop(key) for key in names if key in official}

    base = o["official_name"].removeprefix("robustlt_")
    slug, options, names, forwards, after = BASES[base]
    method, chosen, proxied = build(slug, case, **options, **given(names)), {}, []
    if o["official_name"] != base:
        chosen["robustlt"] = {**given(PLUGINS["robustlt"]), **robustlt_options}
    if base == "awp":
        assert official.pop("awp_warmup") == 0
        chosen["awp"] = {**given(PLUGINS["awp"]), "proxy": "main_optimizer"}
        proxied = ["adv"]  # its direction is taken on the model itself, whose running statistics move
    assert not official, "options that ours does not take"
    run(
        case,
        method,
        forwards,
        after,
        plugins=plugged(case, **chosen),
        proxied=proxied,
        accumulated=True,
        epoch=o["epoch"],
        epochs=o["num_epochs"],
    )


@pytest.mark.proves("robustlt")
@pytest.mark.parametrize("case", [c for c in cases("robustlt_step") if plugged_in(c)])
def test_robustlt_step(case):
    play(case)


@pytest.mark.proves("at")
@pytest.mark.parametrize("case", [c for c in cases("robustlt_step") if not plugged_in(c)])
def test_robustlt_repository_base_step(case):
    """Batch statistics in the attack, Nesterov momentum, and forwards after the update."""
    play(case)


MUTANTS = [{"alpha": 0.0}, {"beta": 0.0}]


@pytest.mark.mutant("robustlt")
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_robustlt_mutant_is_caught(mutant):
    case = shipped("robustlt_step", official_name="robustlt_atbsl")
    with pytest.raises(AssertionError):
        play(case, **mutant)


@pytest.mark.mutant("awp")
def test_awp_mutant_is_caught():
    case = shipped("trades_awp_step")
    method = replace(build("trades", case, beta=6.0), head=linear)
    with pytest.raises(AssertionError):
        run(case, method, [], minimal=True, plugins=plugged(case, awp={"gamma": 0.0}))
