"""The switches of the method notes: each exists, with the fixed track's and the released code's value as defaults."""

from __future__ import annotations

import pytest

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.plan.make import make_plan

OPTIONS = [
    # (method, option, fixed, paper, another value)
    ("robal", "kl_scale", 1.0, 1.0, 10.0),
    ("robal", "evaluate_at", "s", "official", None),
    ("logit-adjust", "bias", "absent", "frozen", None),
    ("rw-fine", "scope", "head", "all", None),
    ("reat", "tail", "official", "official", "pairwise"),
    ("reat", "tail", "official", "official", "off"),
    ("reat", "tail_start", "official", "official", "third"),
    ("reat", "count_at", "before", "before", "after"),
    ("taet", "stage1", "clean", "clean", "adv"),
    ("taet", "absent", "zero", "zero", "skip"),
    ("taet", "first_harl_epoch", 41, 41, 40),
    ("robustlt", "start", "base", "base", "class"),
    ("awp", "proxy", "separate", "separate", "main_optimizer"),
    ("ldam", "s", 1.0, 1.0, 30.0),
    ("ldam", "normalised", False, False, True),
    ("ikl-at", "attack", "joint", "official", "ce"),
    ("ikl-at", "radius_ramp", False, True, None),
    ("ikl-at", "outer", "ce", "ce", "bsl"),
    ("calfat", "attack_prior", True, True, None),
    ("mail", "host", "trades", "trades", "at"),
    ("mail", "first_weighted_epoch", 77, 77, 1),
    ("mail", "normalise", False, False, None),
    ("faal", "form", "class_normalised", "batch_sum", None),
    ("hat", "robust", "kl", "kl", "ce"),
    ("hat", "reach", 2.0, 2.0, 3.5),
    ("lbgat", "beta", 6.0, 6.0, 0.0),
    ("cmo", "drawn", "images", "images", "classes"),
    ("ema", "buffers", "average", "official", "copy"),
    ("swa", "rule", "exponential", "exponential", "mean"),
    ("frl", "kind", "rwrm", "rwrm", "rw"),
    ("frl", "total", "class", "images", None),
    ("frl", "step", "shared", "largest", None),
    ("frl", "base_weights", "equal", "equal", "counts"),
]


@pytest.mark.parametrize(("slug", "name", "fixed", "paper", "other"), OPTIONS)
def test_switch_of_a_method(slug, name, fixed, paper, other):
    card = (plugins if slug in plugins else methods).get(slug).card
    assert card.resolve_options("fixed", {})[name] == fixed
    assert card.resolve_options("paper", {})[name] == paper
    if other is not None:
        assert card.resolve_options("fixed", {name: str(other)})[name] == other


def recipe(slug, track="fixed", **settings):
    return make_plan(slug, "digits-lt", track=track, settings=settings).run


def test_attack_start_and_batch_norm_mode():
    assert recipe("at").recipe.attack.start == recipe("robal").recipe.attack.start == "uniform"
    assert recipe("at", "paper").recipe.attack.start == recipe("robal", "paper").recipe.attack.start == "one_sided"
    assert recipe("trades", "paper").recipe.attack.start == "gauss"
    assert recipe("reat").recipe.attack.bn_mode == recipe("reat", "paper").recipe.attack.bn_mode == "eval"
    run = recipe("reat", **{"attack.bn_mode": "batch", "attack.start": "one_sided"})
    assert (run.recipe.attack.bn_mode, run.recipe.attack.start) == ("batch", "one_sided")
    assert run.overrides == {"attack.bn_mode": "batch", "attack.start": "one_sided"}


def test_bn_forwards():
    assert recipe("trades").recipe.bn_forwards == [] and recipe("trades", "paper").recipe.bn_forwards == [
        "nat",
        "adv",
        "nat",
    ]
    official = recipe("trades", bn_forwards="official")
    assert official.recipe.bn_forwards == ["nat", "adv", "nat"] and official.overrides == {"bn_forwards": "official"}
    assert recipe("taet", bn_forwards="official").recipe.clean_forward_before
    minimal = recipe("taet", "paper", bn_forwards="minimal")
    assert minimal.recipe.bn_forwards == [] and not minimal.recipe.clean_forward_before
    assert recipe("trades", bn_forwards="minimal").overrides == {}


def test_learning_rate_schedule():
    assert recipe("robal").recipe.schedule.kind == "multistep"
    assert recipe("robal", "paper").recipe.schedule.kind == "robal_compound"
    compound = recipe("reat", lr_schedule="robal_compound")
    assert compound.recipe.schedule == recipe("robal", "paper").recipe.schedule
    assert compound.overrides == {"lr_schedule": "robal_compound"}
    ordinary = recipe("robal", "paper", lr_schedule="multistep")
    assert ordinary.recipe.schedule == recipe("robal").recipe.schedule
    assert recipe("robal", lr_schedule="multistep").overrides == {}


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("bn_forwards", "offical", "official"),
        ("lr_schedule", "robal", "robal_compound"),
        ("lr_shedule", "multistep", "lr_schedule"),
        ("attack.bnmode", "batch", "attack.bn_mode"),
    ],
)
def test_a_mistyped_switch_names_the_nearest(name, value, hint):
    with pytest.raises(UnknownNameError, match=hint):
        recipe("reat", **{name: value})


def test_an_impossible_value_is_refused():
    with pytest.raises(UsageError, match="start"):
        recipe("reat", **{"attack.start": "middle"})
