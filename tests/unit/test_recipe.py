"""Recipes: optimisers and schedules as terms, how files state them, and what of them can be set by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from stopping import StopAfter

from ltrobust_bench.cards import methods
from ltrobust_bench.errors import UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.protocol import Recipe, load_protocol
from ltrobust_bench.protocol.optimiser import Adam, Sgd
from ltrobust_bench.protocol.resolve import SWITCHES, recipe_settings
from ltrobust_bench.protocol.schedule import Cosine, Multistep, OneCycle, Piecewise
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.training.step import Step
from ltrobust_bench.training.trainer import train_plan

RECORDS = sorted((Path(__file__).resolve().parents[2] / "results" / "records").rglob("*.json"))
CPU = torch.device("cpu")


def recipe(track="fixed", protocol=None, **by_hand):
    card = methods.get("at").card
    return card.resolve_recipe(protocol or load_protocol("ltr-linf-v1"), track, 8 / 255, by_hand)


def plan(**settings):
    return make_plan("at", "digits-lt", protocol="smoke", epochs=4, limit_train=150, settings=settings)


def test_an_attack_of_no_known_kind_in_a_card_is_one_line():
    """Its terms take the place of the protocol's: found by fuzzing, as a KeyError."""
    card = methods.get("at").card.model_copy(update={"recipe": {"attack": {"kind": "digitized"}}})
    with pytest.raises(UsageError, match=r"recipe: attack\.epsilon: Field required"):
        card.resolve_recipe(load_protocol("digits-v0"), "paper", 0.15)


# What files hold


def test_recipes_of_records_are_written_as_they_were():
    for path in RECORDS:
        stated = json.dumps(json.loads(path.read_text())["run"]["recipe"])
        read = Recipe.model_validate_json(stated)
        assert json.dumps(json.loads(read.model_dump_json(exclude_unset=True))) == stated  # order included


def test_digests_of_the_protocols_are_those_of_their_day():
    assert {name: load_protocol(name).digest(of)[:12] for name, of in PROTOCOLS} == {
        "digits-v0": "4e918a4d061f",
        "ltr-linf-v1": "e33d39f36aa9",
        "smoke": "8f3cf8116642",
    }


PROTOCOLS = [("digits-v0", "digits-lt"), ("ltr-linf-v1", "cifar10-lt"), ("smoke", "digits-lt")]


def test_sgd_is_stated_flat_and_others_as_a_part():
    flat = recipe().model_dump()
    assert (flat["momentum"], flat["nesterov"], "optimizer" in flat) == (0.9, False, False)
    assert recipe().optimizer == Sgd(kind="sgd", momentum=0.9, nesterov=False)
    other = recipe(optimizer="adamw").model_dump(mode="json")
    assert other["optimizer"] == {"kind": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    assert "momentum" not in other and Recipe.model_validate(other) == recipe(optimizer="adamw")
    del flat["momentum"], flat["nesterov"]
    for wrong, says in (
        ({**other, "momentum": 0.9}, "momentum: is a term of sgd"),
        ({**flat, "optimizer": {"kind": "sgd", "momentum": 0.9, "nesterov": False}}, "stand in the recipe itself"),
        (flat, "optimizer"),
        ({**flat, "momentum": 0.9}, "nesterov"),
        ({**flat, "momentum": 0.0, "nesterov": True}, "nesterov needs a momentum"),
    ):
        with pytest.raises(ValidationError, match=says):
            Recipe.model_validate(wrong)


def test_kinds_have_keys_of_their_own():
    """Defaults are left out of a key, the kind never is."""
    keys = {plan(optimizer=kind).run.key() for kind in ("sgd", "adam", "adamw")}
    keys |= {plan(lr_schedule=kind).run.key() for kind in ("cosine", "onecycle", "piecewise")}
    assert len(keys) == 6


def test_a_cards_optimiser_and_schedule_replace_the_protocols():
    smoke = load_protocol("smoke")
    card = methods.get("erm").card.model_copy(
        update={
            "recipe_from": None,
            "recipe": {"lr": 0.001, "optimizer": {"kind": "adam", "beta1": 0.5}, "schedule": {"kind": "cosine"}},
        }
    )
    theirs = card.resolve_recipe(smoke, "paper", 0.15)
    assert theirs.optimizer == Adam(kind="adam", beta1=0.5) and theirs.schedule == Cosine(kind="cosine")
    stated = card.stated_recipe(smoke, "paper")
    assert stated["optimizer.beta1"] == 0.5 and "momentum" not in stated and "schedule.milestones" not in stated
    # And back by hand, to the protocol's terms.
    back = card.resolve_recipe(smoke, "paper", 0.15, {"optimizer": "sgd", "lr_schedule": "multistep"})
    assert back.optimizer == smoke.training.optimizer and back.schedule == smoke.training.schedule


# By hand


def test_words_and_terms_by_hand_whatever_their_order():
    one = plan(optimizer="adamw", lr="0.001", **{"optimizer.beta2": "0.95"}).run
    two = plan(**{"optimizer.beta2": "0.95"}, lr="0.001", optimizer="adamw").run
    assert one.recipe == two.recipe and one.recipe.optimizer == Adam(kind="adamw", beta2=0.95)
    assert one.overrides == {"optimizer": "adamw", "lr": 0.001, "optimizer.beta2": 0.95}
    warm = plan(lr_schedule="cosine", **{"schedule.warmup_epochs": 2, "schedule.final": "0.1"}).run.recipe
    assert warm.schedule == Cosine(kind="cosine", final=0.1, warmup_epochs=2)
    assert plan(momentum="0.8").run.overrides == {"momentum": 0.8}


def test_a_written_out_default_is_no_override():
    assert plan(optimizer="sgd", momentum=0.9, lr_schedule="multistep").run.overrides == {}
    short, long = plan(optimizer="adam"), plan(optimizer="adam", **{"optimizer.eps": "1e-8"})
    assert short.run.overrides == long.run.overrides and short.run.key() == long.run.key()


def test_every_word_alone_gives_a_recipe():
    for name in ("optimizer", "lr_schedule"):
        for word in SWITCHES[name][0]:
            assert getattr(recipe(**{name: word}), SWITCHES[name][1][0]).kind == word


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"optimizer.beta2": 0.9}, "optimizer.beta2 is a term of optimizer=adam and optimizer=adamw, .* has sgd: "),
        ({"optimizer": "adamw", "momentum": 0.8}, "momentum is a term of optimizer=sgd, .* has adamw: leave it out"),
        ({"schedule.rise": 0.2}, "schedule.rise is a term of lr_schedule=onecycle, .* add --set lr_schedule=onecycle"),
        ({"optimizer": "adamv"}, "unknown value of optimizer 'adamv': did you mean"),
        ({"optimizer": "adam", "optimizer.beta1": 1.5}, "beta1: Input should be less than 1"),
        ({"optimizer.kind": "adam"}, "unknown setting 'optimizer.kind'"),
        ({"optimizer.momentum": 0.8}, "unknown setting 'optimizer.momentum'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(settings, says):
    with pytest.raises(UsageError, match=says) as refusal:
        plan(**settings)
    assert "\n" not in str(refusal.value)


def test_every_setting_by_hand_is_a_leaf_of_some_recipe():
    assert {"momentum", "optimizer.eps", "schedule.gamma", "schedule.each", "attack.steps"} <= recipe_settings().keys()
    assert not {"optimizer.kind", "schedule.milestones", "schedule.kind", "schedule"} & recipe_settings().keys()


# The mathematics of optimisers


def two_steps(terms, weight_decay):
    """A scalar weight from 1 with the gradients 0.5 and -0.2 at a rate of 0.1, after each step."""
    weight, seen = torch.nn.Parameter(torch.ones((), dtype=torch.float64)), []
    optimizer = terms.build([weight], 0.1, weight_decay)
    for gradient in (0.5, -0.2):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        seen.append(weight.item())
    return seen


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_by_hand(nesterov):
    w, v, expected = 1.0, 0.0, []
    for gradient in (0.5, -0.2):
        g = gradient + 0.01 * w
        v = 0.9 * v + g
        w -= 0.1 * (g + 0.9 * v if nesterov else v)
        expected.append(w)
    assert two_steps(Sgd(kind="sgd", momentum=0.9, nesterov=nesterov), 0.01) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_by_hand(kind):
    w, m, s, expected = 1.0, 0.0, 0.0, []
    for t, gradient in enumerate((0.5, -0.2), start=1):
        g = gradient + (0.01 * w if kind == "adam" else 0.0)
        w -= 0.1 * 0.01 * w if kind == "adamw" else 0.0
        m, s = 0.8 * m + 0.2 * g, 0.95 * s + 0.05 * g * g
        w -= 0.1 * (m / (1 - 0.8**t)) / (math.sqrt(s / (1 - 0.95**t)) + 1e-3)
        expected.append(w)
    assert two_steps(Adam(kind=kind, beta1=0.8, beta2=0.95, eps=1e-3), 0.01) == pytest.approx(expected, rel=1e-12)


# The mathematics of schedules


def test_cosine_at_its_ends_and_middle():
    cosine = Cosine(kind="cosine", final=0.2)
    assert [cosine.rate(2.0, p, 8) for p in (0, 4, 8)] == pytest.approx([2.0, 1.2, 0.4])
    assert cosine.rate(2.0, 2.5, 8, 0.1) == pytest.approx(2 * (0.2 + 0.8 * (1 + math.cos(math.pi * 2.5 / 8)) / 2))


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_onecycle_is_torchs(shape):
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    strategy = {"cosine": "cos", "linear": "linear"}[shape]
    official = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=70, pct_start=0.4, anneal_strategy=strategy, base_momentum=0.7, max_momentum=0.9
    )
    ours = OneCycle(kind="onecycle", rise=0.4, shape=shape, momentum=[0.9, 0.7])
    for step in range(70):
        momentum = ours.momentum_at(step / 7, 10, 1 / 7)
        assert momentum == pytest.approx(optimizer.param_groups[0]["momentum"], rel=1e-9)
        assert ours.rate(0.5, step / 7, 10, 1 / 7) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        official.step()


def test_a_piecewise_rate_goes_up_and_down_again_in_a_budget_of_any_length():
    """Rice et al.: interp(t, [0, 2/5 E, E], [0, max, 0]) at the end of each step."""
    cycle = recipe(lr_schedule="piecewise").schedule
    for epochs, steps in ((5, 4), (200, 3)):
        for step in range(epochs * steps):
            t = (step + 1) / steps
            expected = t / (0.4 * epochs) if t <= 0.4 * epochs else (epochs - t) / (0.6 * epochs)
            assert cycle.rate(0.2, step / steps, epochs, 1 / steps) == pytest.approx(0.2 * expected, abs=1e-12)
    with pytest.raises(ValidationError, match="points: must rise from 0 to `of`"):
        Piecewise(kind="piecewise", points=[0, 50], factors=[0, 1], of=100)


@pytest.mark.parametrize("schedule", [Multistep(kind="multistep", milestones=[9], of=10), Cosine(kind="cosine")])
def test_a_warm_up_is_a_straight_line_up_to_the_rate_without_it(schedule):
    warm = schedule.model_copy(update={"warmup_epochs": 4})
    for lasting in (1, 0.25):
        steps = [n * lasting for n in range(round(10 / lasting))]
        shares = [warm.rate(1.0, p, 10, lasting) / schedule.rate(1.0, p, 10, lasting) for p in steps]
        assert shares == pytest.approx([min(1, (p + lasting) / 4) for p in steps])
        assert shares[0] == lasting / 4 and shares[round(4 / lasting) - 1] == 1


# In training


def rates_in_force(monkeypatch, p, folder, of=lambda group: group["lr"]):
    """The optimiser's rate in each step of a training, or something else of it."""
    seen, update = [], Step.update

    def watched(self):
        seen.extend({of(group) for group in self.trainee.optimizer.param_groups})
        return update(self)

    monkeypatch.setattr(Step, "update", watched)
    train_plan(p, folder, CPU)
    return seen


@pytest.mark.parametrize("kind", ["multistep", "robal_compound", "cosine", "ikl_cosine", "onecycle", "piecewise"])
def test_each_step_has_its_rate(monkeypatch, tmp_path, kind):
    """An epoch or a step too early or too late is noticed, and so is a rate per epoch where one per step is stated."""
    p = plan(lr_schedule=kind)
    schedule, steps = p.run.recipe.schedule, p.steps_per_epoch
    assert steps == 3
    seen = rates_in_force(monkeypatch, p, tmp_path)
    if schedule.each == "epoch":
        expected = [schedule.rate(0.1, step // steps, 4, 1) for step in range(4 * steps)]
        mutant = [schedule.rate(0.1, step // steps + 1, 4, 1) for step in range(4 * steps)]
    else:
        expected = [schedule.rate(0.1, step / steps, 4, 1 / steps) for step in range(4 * steps)]
        mutant = [schedule.rate(0.1, step // steps, 4, 1) for step in range(4 * steps)]
    assert seen == pytest.approx(expected, rel=1e-12)
    assert mutant != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "of"), [("sgd", lambda group: group["momentum"]), ("adam", lambda group: group["betas"][0])]
)
def test_each_step_has_its_momentum_where_that_is_cycled(monkeypatch, tmp_path, optimizer, of):
    p = plan(optimizer=optimizer, lr_schedule="onecycle")
    usual = {"sgd": p.run.recipe.optimizer.model_dump().get("momentum"), "adam": 0.9}[optimizer]
    assert set(rates_in_force(monkeypatch, p, tmp_path / "constant", of)) == {usual}
    schedule = p.run.recipe.schedule.model_copy(update={"momentum": [0.95, 0.85]})
    recipe = p.run.recipe.model_copy(update={"schedule": schedule})
    cycled = replace(p, run=p.run.model_copy(update={"recipe": recipe}))
    expected = [schedule.momentum_at(step / 3, 4, 1 / 3) for step in range(12)]
    seen = rates_in_force(monkeypatch, cycled, tmp_path / "cycled", of)
    assert seen[:1] + seen[-1:] == pytest.approx([0.95, 0.95]) and min(seen) < 0.86
    assert seen == pytest.approx(expected, rel=1e-12)


def test_resumed_with_adamw_and_a_rate_per_step_equals_uninterrupted(tmp_path):
    p = plan(optimizer="adamw", lr=0.01, lr_schedule="onecycle", **{"schedule.warmup_epochs": 1})
    whole = train_plan(p, tmp_path / "whole", CPU)
    with pytest.raises(KeyboardInterrupt):
        train_plan(p, tmp_path / "parts", CPU, StopAfter(2 * p.steps_per_epoch + 1))
    resumed = train_plan(p, tmp_path / "parts", CPU)
    weights = [ckpt.weights_sha256(ckpt.read_model(result.model_path)[0]) for result in (whole, resumed)]
    assert weights[0] == weights[1] and whole.history == resumed.history
    assert resumed.forwards_here < whole.forwards_here
