"""Whole optimiser steps agree with the official code: x_adv, loss, gradients, weights and batch-norm buffers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ltrobust_bench.baselines.cfa import method as cfa
from tiny import cases, close, dtype_of, network, ours, shipped, tensor

from ltrobust_bench.api import linear
from ltrobust_bench.cards import methods
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.protocol import AttackSpec, Recipe
from ltrobust_bench.protocol.schedule import Multistep
from ltrobust_bench.training.build import build_method
from ltrobust_bench.training.step import Step, Trainee

STARTS = {
    "one_sided",
    "gauss",
    "uniform",
    "uniform with the base epsilon, clamped to [0,1]",
    "uniform in the class budget, clamped to [0,1]",
    "uniform, clamped to [0,1]",
    "none (the clean image)",
}


def recipe(case, forwards, after=(), before=False):
    o = case["options"]
    assert o["start"] in STARTS
    return Recipe(
        epochs=1,
        batch_size=2,
        drop_last=False,
        lr=o["optimizer"]["lr"],
        momentum=o["optimizer"]["momentum"],
        nesterov=o["optimizer"]["nesterov"],
        weight_decay=o["optimizer"]["weight_decay"],
        schedule=Multistep(kind="multistep", milestones=[], of=1),
        precision="fp32",
        attack=AttackSpec(
            epsilon=o["epsilon"],
            step_size=o["step_size"],
            steps=o["num_steps"],
            start="none",
            clamp_start=False,
            bn_mode=o["bn_mode"],
        ),
        bn_forwards=list(forwards),
        bn_forwards_after=list(after),
        clean_forward_before=before,
    )


def build(slug, case, **options):
    resolved = methods.get(slug).card.resolve_options("paper", options)
    classes = np.shape(case["inputs"]["network"]["params"]["fc.weight"])[0]
    counts = case["inputs"].get("counts") or [1] * classes
    method, _ = build_method(slug, resolved, counts, "cifar10-lt", 1, torch.device("cpu"))
    return method


def run(
    case,
    method,
    forwards,
    after=(),
    minimal=False,
    before=False,
    plugins=(),
    proxied=(),
    attacked=(),
    looked_at=False,
    accumulated=False,
    epoch=1,
    epochs=1,
    make=torch.nn.Linear,
    teacher=None,
    views=(),
):
    """Play a case through; with ``minimal`` forwards only what must then agree is compared.

    ``make``: makes the linear head.
    ``teacher``: what the method asks for labels of the adversarial batch.
    ``views``: further forwards of the loss, after the others.
    ``accumulated``: predicted counts are those of all steps so far, not of each.
    ``looked_at``: the official attack forwards its last iterate once more in train mode, to choose among restarts.
    """
    model = network(case, make)
    settings = recipe(case, [] if minimal else forwards, [] if minimal else after, before)
    optimizer = settings.optimizer.build(model.parameters(), settings.lr, settings.weight_decay)
    trainee = Trainee(model, method, settings, optimizer, Counter(), plugins, teacher)
    if "predicted" in method.memory and "predicted_counts_last_epoch" in case["inputs"]:
        last = torch.tensor(case["inputs"]["predicted_counts_last_epoch"], dtype=torch.float64)
        method.memory["predicted"].load_state_dict({"last": last, "current": torch.zeros_like(last)})
    x, y = tensor(case, case["inputs"]["x"]), torch.tensor(case["inputs"]["labels"])
    model.train()
    counted_before = 0
    crafts = method.crafts(epoch, epochs)
    for k, expected in enumerate(case["expected"]["steps"]):
        if not minimal:
            official = [f for f in [*forwards, *after] if crafts or f == "nat"] or ["nat"]
            assert ["nat"] * (before and crafts) + [*attacked, *proxied, *official, *views] == expected["bn_forwards"]
        step = Step(trainee, x, y, epoch=epoch, epochs=epochs)
        start = case["inputs"].get("x_start")
        crafted = step.craft(start=None if start is None else tensor(case, start[k]))
        close(case, "x_adv", crafted, expected["x_adv"])
        if looked_at:
            with torch.no_grad():
                model(crafted)
        close(case, "loss", step.update(), expected["loss"])
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        for name, value in expected["grads"].items():
            close(case, name, parameters[ours(name)].grad, value)
        for name, value in expected["params"].items():
            close(case, name, parameters[ours(name)], value)
        if minimal:
            return
        for name, value in expected["buffers"].items():
            close(case, name, buffers[ours(name)], value)
        if "predicted_counts" in expected:
            counted = method.memory["predicted"].current.numpy().copy()
            assert (counted - counted_before).tolist() == expected["predicted_counts"]
            counted_before = 0 if accumulated else counted
    assert dtype_of(case) == next(model.parameters()).dtype


STEPS = [
    *[("at", ["adv"], c) for c in cases("at_step", loss=None, deferred=None)],
    *[("trades", ["nat", "adv", "nat"], c) for c in cases("trades_step")],
    *[("reat", ["adv"], c) for c in cases("reat_step")],
    *[("at-bsl", ["adv"], c) for c in cases("at_bsl_step")],
]
STEP_PARAMETERS = [pytest.param(m, f, c.values[0], id=f"{m}-{c.id}") for m, f, c in STEPS]


@pytest.mark.proves
@pytest.mark.parametrize("minimal", [False, True], ids=["official", "minimal"])
@pytest.mark.parametrize(("slug", "forwards", "case"), STEP_PARAMETERS)
def test_step(slug, forwards, case, minimal):
    assert methods.get(slug).card.recipe["bn_forwards"] == forwards
    options = {"beta": case["options"]["beta"]} if slug == "trades" else {}
    run(case, build(slug, case, **options), forwards, minimal=minimal)


@pytest.mark.proves("robal")
@pytest.mark.parametrize("minimal", [False, True], ids=["official", "minimal"])
@pytest.mark.parametrize("case", cases("robal_step"))
def test_robal_step(case, minimal):
    values = {k: case["options"][k] for k in ("m_0", "s", "tau_m", "tau_b", "beta", "gamma_w")}
    run(case, build("robal", case, **values), ["adv", "nat", "nat", "adv"], minimal=minimal)


LOSS_STEPS = {  # official loss of at_step.json -> method, and its options by their official names
    "LogitAdjust": ("logit-adjust", {"tau": "tau"}),
    "LDAM": ("ldam", {"max_m": "max_margin", "s": "s"}),
    "CB": ("cb-focal", {"beta": "beta", "gamma": "gamma"}),
    "CDT": ("cdt", {"tau": "tau"}),
}
PLAIN_CE = {"LDAM": {"max_m": 0.0, "s": 1.0}}


OTHER_LOSSES = [c for c in cases("at_step") if c.values[0]["options"]["loss"] or c.values[0]["options"].get("deferred")]


@pytest.mark.proves("ldam", "logit-adjust")
@pytest.mark.parametrize("case", OTHER_LOSSES)
def test_long_tailed_loss_step(case):
    """PGD-AT with another outer loss; a deferred case (from epoch 40 of 80 on) is LDAM-DRW, maybe without margins."""
    o = case["options"]
    ((name, values),) = (o["loss"] or PLAIN_CE).items()
    slug, names = LOSS_STEPS[name]
    unused = {key: value for key, value in values.items() if key not in names}
    assert unused.items() <= {"weight": None, "loss_type": "focal"}.items()
    options = {names[key]: value for key, value in values.items() if key in names}
    if o.get("deferred"):
        options |= {"drw_start": 0.5}
        assert slug == "ldam" and o["deferred"] == {"DRW": {}}
    method = replace(build(slug, case, **options), head=linear)
    run(case, method, ["adv"], epoch=o.get("epoch", 1), epochs=80)


@pytest.mark.proves("mart")
@pytest.mark.parametrize("minimal", [False, True], ids=["official", "minimal"])
@pytest.mark.parametrize("case", cases("mart_step"))
def test_mart_step(case, minimal):
    assert methods.get("mart").card.recipe["bn_forwards"] == ["nat", "adv"]
    run(case, build("mart", case, beta=case["options"]["beta"]), ["nat", "adv"], minimal=minimal)


@pytest.mark.proves("alp")
@pytest.mark.parametrize("case", cases("alp_step"))
def test_alp_step(case):
    pair = {"ALP_2": "logits", "ALP": "probabilities"}[case["options"]["regulariser"]]
    run(case, build("alp", case, beta=case["options"]["beta"], pair=pair), ["adv", "nat", "nat", "adv"])


@pytest.mark.proves("taet")
@pytest.mark.parametrize("case", cases("taet_step"))
def test_taet_step(case):
    o = case["options"]
    values = {k: o[k] for k in ("alpha", "beta", "gamma")}
    card = methods.get("taet").card
    assert card.recipe["clean_forward_before"] and card.recipe["bn_forwards"] == ["adv"]
    forwards = ["nat", "nat"] if o["notebook_stage1_second_forward"] else ["adv"]
    run(case, build("taet", case, **values), forwards, before=True, epoch=41 if o["stage"] == 2 else 40, epochs=100)


def fair(slug, case, **options):
    """CFA or DAFA with the class budgets and weights of a case."""
    host = "at" if case["options"]["what"] == "pgd" else "trades"
    values = {"beta": case["options"]["beta"]} if (slug, host) == ("dafa", "trades") else {}
    method = build(slug, case, host=host, **values, **options)
    if slug == "dafa":
        method.memory["similarity"].weights = tensor(case, case["inputs"]["class_weight"])
        return method
    # The case gives epsilon_c and beta'_c; the accuracies that lead to them differ, so each is set by itself.
    given = tensor(case, case["inputs"]["class_epsilon"])
    method.memory["accuracy"].last = given / case["options"]["epsilon"] - 0.5
    if host == "trades":
        share = tensor(case, case["inputs"]["class_beta"])

        def loss(outputs, y, ctx):
            return cfa.calibrated_trades(share, outputs.clean.logits, outputs.adversarial.logits, y)

        method = replace(method, loss=loss)
    return method


@pytest.mark.proves
@pytest.mark.parametrize("minimal", [False, True], ids=["official", "minimal"])
@pytest.mark.parametrize(
    ("slug", "case"), [(m, c.values[0]) for m in ("cfa", "dafa") for c in cases(f"{m}", what="trades")]
)
def test_fair_trades_step(slug, case, minimal):
    forwards = methods.get(slug).card.recipe["bn_forwards"]
    run(case, fair(slug, case), forwards, minimal=minimal, epoch=100, epochs=200)


@pytest.mark.proves("cfa")
@pytest.mark.parametrize("case", cases("cfa", what="pgd"))
def test_cfa_step_that_attacks_in_train_mode(case):
    steps = case["options"]["num_steps"]
    run(case, fair("cfa", case), ["adv"], epoch=100, epochs=200, attacked=["attack"] * steps)


MUTANTS = [
    # (method, options that remove its distinguishing term, forwards, golden file)
    ("trades", {"beta": 0.0}, ["nat", "adv", "nat"], "trades_step"),
    ("at-bsl", {"tau": 0.0}, ["adv"], "at_bsl_step"),
    ("reat", {"tail": "off"}, ["adv"], "reat_step"),
    ("reat", {"tail": "pairwise"}, ["adv"], "reat_step"),
    ("robal", {"beta": 0.0}, ["adv", "nat", "nat", "adv"], "robal_step"),
    ("robal", {"tau_b": 0.0}, ["adv", "nat", "nat", "adv"], "robal_step"),
    ("robal", {"tau_m": 0.0, "m_0": 0.0}, ["adv", "nat", "nat", "adv"], "robal_step"),
    ("robal", {"kl_scale": 10.0}, ["adv", "nat", "nat", "adv"], "robal_step"),
]


@pytest.mark.mutant
@pytest.mark.parametrize(("slug", "options", "forwards", "file"), MUTANTS, ids=lambda v: str(v)[:40])
def test_mutant_is_caught(slug, options, forwards, file):
    """A method without its distinguishing term fails the same comparison."""
    case = shipped(file)
    faithful = {}
    if slug == "robal":
        faithful = {k: case["options"][k] for k in ("m_0", "s", "tau_m", "tau_b", "beta", "gamma_w")}
    run(case, build(slug, case, **faithful), forwards)
    with pytest.raises(AssertionError):
        run(case, build(slug, case, **{**faithful, **options}), forwards)


LOSS_MUTANTS = [
    ("mart", {"beta": 0.0}, "mart_step", "original", {}),
    ("alp", {"beta": 0.0}, "alp_step", "logits", {}),
    ("alp", {"pair": "probabilities"}, "alp_step", "logits", {}),
    ("ldam", {"max_margin": 0.0}, "at_step", "ldam", {}),
    ("ldam", {"max_margin": 0.0, "drw_start": None}, "at_step", "deferred_reweighting_on", {"epoch": 40, "epochs": 80}),
    ("logit-adjust", {"tau": 0.0}, "at_step", "logit_adjust_c10", {}),
    ("taet", {"gamma": 0.0}, "taet_step", "stage2_class_absent", {"epoch": 41, "epochs": 100, "before": True}),
    ("taet", {"absent": "skip"}, "taet_step", "stage2_class_absent", {"epoch": 41, "epochs": 100, "before": True}),
    (
        "taet",
        {"first_harl_epoch": 42},
        "taet_step",
        "stage2_class_absent",
        {"epoch": 41, "epochs": 100, "before": True},
    ),
]


@pytest.mark.mutant
@pytest.mark.parametrize(("slug", "options", "file", "name", "when"), LOSS_MUTANTS, ids=lambda v: str(v)[:40])
def test_loss_mutant_is_caught(slug, options, file, name, when):
    """As above, for the methods of the long-tail study; the faithful ones pass in the tests above."""
    case = shipped(file, name)
    method = replace(build(slug, case, **options), head=linear)
    with pytest.raises(AssertionError):
        run(case, method, [], minimal=True, **when)


@pytest.mark.mutant
@pytest.mark.parametrize("slug", ["cfa", "dafa"])
def test_fairness_mutant_is_caught(slug):
    """The same radius and weight for every class."""
    case = shipped(slug, what="trades")
    flat = {**case, "inputs": {**case["inputs"]}}
    for key in ("class_epsilon", "class_beta", "class_weight"):
        if key in flat["inputs"]:
            flat["inputs"][key] = [sum(flat["inputs"][key]) / len(flat["inputs"][key])] * len(flat["inputs"][key])
    with pytest.raises(AssertionError):
        run(flat, fair(slug, flat), [], minimal=True, epoch=100, epochs=200)


@pytest.mark.mutant("at")
def test_mutant_at_without_attack_is_caught():
    case = shipped("at_step", loss=None, deferred=None)
    case = {**case, "options": {**case["options"], "num_steps": 0}}
    with pytest.raises(AssertionError):
        run(case, build("at", case), ["adv"])
