"""The defenses of 2021 to 2026 agree with the official code, on given logits and in whole steps (IKL: its own file)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ltrobust_bench.baselines.calfat import method as calfat
from ltrobust_bench.baselines.mail import method as mail
from test_golden_steps import build, run
from tiny import cases, close, same, tensor

from ltrobust_bench.api import Output
from ltrobust_bench.cards import methods


def labels(case):
    return torch.tensor(case["inputs"]["labels"])


def counts(case):
    return torch.tensor(case["inputs"]["counts"], dtype=torch.float64)


def given(case, *names):
    """Outputs of a step whose logits are those of a case, and the logits, which take gradients."""
    logits = {name: tensor(case, case["inputs"][f"logits_{name}"], grad=True) for name in names}
    kinds = {"nat": "clean", "adv": "adversarial"}
    return SimpleNamespace(**{kinds[name]: Output(z, z) for name, z in logits.items()}), logits


def close_gradients(case, loss, logits):
    for name, gradient in zip(logits, torch.autograd.grad(loss, list(logits.values())), strict=True):
        close(case, f"grad_logits_{name}", gradient)


def one(file, name):
    """The case of that name, to be changed."""
    (case,) = [c.values[0] for c in cases(file) if c.id == name]
    return case


# CalFAT


@pytest.mark.proves("calfat")
@pytest.mark.parametrize("case", cases("calfat_loss", function="maxMarginLoss"))
def test_calfat_loss(case):
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    prior = calfat.class_prior(counts(case), 0.1)
    loss = calfat.calibrated_cross_entropy(prior, case["options"]["s"])(logits, labels(case))
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


def calfat_method(case, **options):
    classes = len(case["inputs"]["counts"])
    network = {"params": {"fc.weight": [[0.0]] * classes}}
    return build("calfat", {"inputs": {"network": network, **case["inputs"]}}, **options)


@pytest.mark.proves("calfat")
@pytest.mark.parametrize("case", cases("calfat_loss", function="kl_adv (loss)"))
def test_calfat_attack(case):
    _, logits = given(case, "adv")
    ctx = SimpleNamespace(natural_logits=lambda: tensor(case, case["inputs"]["logits_nat"]))
    loss = calfat_method(case).objective(logits["adv"], None, ctx).sum()
    close(case, "loss", loss)
    close_gradients(case, loss, logits)


@pytest.mark.proves("calfat")
@pytest.mark.parametrize("minimal", [False, True], ids=["official", "minimal"])
@pytest.mark.parametrize("case", cases("calfat_step"))
def test_calfat_step(case, minimal):
    forwards = methods.get("calfat").card.recipe["bn_forwards"]
    run(case, build("calfat", case, scale=case["options"]["s"]), forwards, minimal=minimal)


@pytest.mark.mutant("calfat")
@pytest.mark.parametrize(
    ("mutant", "changed"),
    [
        ("no prior", {"prior": 0.0}),
        ("no prior in the attack", {"attack_prior": False}),
        ("no scale", {"scale": 1.0}),
        ("balanced softmax of the logits", {"scale": 1.0, "prior": 1.0}),
    ],
    ids=lambda v: str(v)[:40],
)
def test_calfat_mutant_is_caught(mutant, changed):
    case = one("calfat_step", "cifar10_c5")
    with pytest.raises(AssertionError):
        run(case, build("calfat", case, **changed), [], minimal=True)


# MAIL


WEIGHTED = {"epoch": 77, "epochs": 120}


@pytest.mark.proves("mail")
@pytest.mark.parametrize("case", cases("mail_loss"))
def test_mail_loss(case):
    o, y = case["options"], labels(case)
    host = {"mail_at": "at", "mail_trades": "trades"}[o["function"]]
    outputs, logits = given(case, *(["adv"] if host == "at" else ["adv", "nat"]))
    close(case, "margins", mail.probability_margins(logits["adv"], y))
    close(case, "weights", mail.margin_weights(logits["adv"], y, o["bias"], o["slope"]))
    values = {key: o[key] for key in ("bias", "slope", "beta") if key in o}
    loss = mail_method(host, **values).loss(outputs, y, SimpleNamespace(**WEIGHTED))
    close(case, "loss", loss)
    close_gradients(case, loss, logits)


def mail_method(host, **options):
    """As for any data set: no class matters."""
    return build("mail", {"inputs": {"network": {"params": {"fc.weight": [[0.0]] * 2}}}}, host=host, **options)


def play_mail(case, minimal=False, **changed):
    o = case["options"]
    host = {"mail_at": "at", "mail_trades": "trades"}[o["function"]]
    values = {key: o[key] for key in ("bias", "slope", "beta") if key in o}
    when = WEIGHTED if o["phase"] == "mail" else {"epoch": 76, "epochs": 120}
    forwards = ["adv"] if host == "at" else ["nat", "adv"]
    run(case, build("mail", case, **{"host": host, **values, **changed}), forwards, minimal=minimal, **when)


@pytest.mark.proves("mail")
@pytest.mark.parametrize("minimal", [False, True], ids=["official", "minimal"])
@pytest.mark.parametrize("case", cases("mail_step"))
def test_mail_step(case, minimal):
    play_mail(case, minimal)


@pytest.mark.proves("mail")
@pytest.mark.parametrize("case", cases("lr_schedules_more", recipe="mail"))
def test_mail_begins_to_weigh_when_the_official_loop_does(case):
    """Logits that are all wrong: with AT's values each image then weighs more than the burn-in's 1."""
    logits, y = torch.tensor([[0.0, 9.0]] * 3), torch.tensor([0, 0, 0])
    outputs, method = SimpleNamespace(adversarial=Output(logits, logits)), mail_method("at")
    losses = [method.loss(outputs, y, SimpleNamespace(epoch=e, epochs=120)).item() for e in range(1, 121)]
    same([loss > 1.5 * losses[0] for loss in losses], case["expected"]["weighted"])


def test_mail_uses_the_readmes_values():
    for name, host in (("at_c10_b6", "at"), ("trades_c10_b6", "trades")):
        o = one("mail_loss", name)["options"]
        assert mail.README[host] == (o["bias"], o["slope"])


@pytest.mark.mutant("mail")
@pytest.mark.parametrize(
    ("mutant", "changed", "name"),
    [
        ("no weights", {"first_weighted_epoch": 78}, "at_c5"),
        ("no weights on TRADES", {"first_weighted_epoch": 78}, "trades_c4"),
        ("weights in the burn-in", {"first_weighted_epoch": 76}, "trades_burn_in"),
        ("weights of mean 1", {"normalise": True}, "at_c5"),
        ("the other host's values", {"bias": 0.0, "slope": 2.0}, "at_c5"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_mail_mutant_is_caught(mutant, changed, name):
    with pytest.raises(AssertionError):
        play_mail(one("mail_step", name), minimal=True, **changed)
