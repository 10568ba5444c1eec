"""The defenses of 2021 to 2026 agree with the official code, on given logits and in whole steps (IKL: its own file)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ltrobust_bench.baselines.awp import method as awp
from ltrobust_bench.baselines.calfat import method as calfat
from ltrobust_bench.baselines.faal import method as faal
from ltrobust_bench.baselines.frl import method as frl
from ltrobust_bench.baselines.mail import method as mail
from ltrobust_bench.baselines.mcat import method as mcat
from test_golden_steps import build, run
from tiny import cases, close, same, shipped, tensor

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
    case = shipped("calfat_step", "cifar10_c5")
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
        o = shipped("mail_loss", name)["options"]
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
        play_mail(shipped("mail_step", name), minimal=True, **changed)


# FAAL


def faal_method(case, **options):
    classes = len(case["inputs"].get("margins") or case["inputs"]["logits_adv"][0])
    network = {"params": {"fc.weight": [[0.0]] * classes}}
    return build("faal", {"inputs": {"network": network}}, **options)


@pytest.mark.proves("faal")
@pytest.mark.parametrize("case", cases("faal_weights"))
def test_faal_weights(case):
    sums = tensor(case, case["inputs"]["batch_counts"]) * tensor(case, case["inputs"]["margins"])
    weights = faal.worst_distribution(sums, case["options"]["radius"])
    close(case, "weights", weights)
    assert weights.sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.proves("faal")
@pytest.mark.parametrize("case", cases("faal_loss"))
def test_faal_loss(case):
    """Both forms; ours was computed by two independent root finders."""
    o, y = case["options"], labels(case)
    form, host = o["function"].split(".")
    outputs, logits = given(case, *[n for n in ("adv", "nat") if f"logits_{n}" in case["inputs"]])
    margins, adversarial = faal.class_margins(logits["adv"], y), logits["adv"]
    if form == "class_normalised":
        present = faal.batch_counts(y, len(margins)) > 0
        same(present.nonzero().flatten().tolist(), case["expected"]["classes"])
        close(case, "class_margins", margins[present])
        close(case, "weights", faal.class_normalised_weights(adversarial, y, o["radius"]))
    else:
        close(case, "class_margins", margins)
        close(case, "weights", faal.batch_sum_weights(adversarial, y, o["radius"]))
    method = faal_method(case, form=form, host=host.lower(), radius=o["radius"], beta=6.0)
    loss = method.loss(outputs, y, None)
    close(case, "loss", loss)
    close_gradients(case, loss, logits)


class OfAnotherLoss(awp.AdversarialWeights):
    """AWP whose proxy climbs another method's loss: the official FAAL's the unweighted one, ours the host's."""

    def __init__(self, gamma, proxy, warmup, other):
        super().__init__(gamma, proxy, warmup)
        self.other = other

    def before_loss(self, step):
        trainee = step._behind.trainee
        own, trainee.method = trainee.method, self.other
        super().before_loss(step)
        trainee.method = own


def play_faal(case, minimal=False, **changed):
    o = case["options"]
    form, host = o["function"].split(".")
    method = build("faal", case, **{"form": form, "host": host.lower(), "radius": o["radius"], **changed})
    around = ()
    if o["awp"]:
        equal = build("faal", case, form=form, host=host.lower(), radius=0.0)
        around = (OfAnotherLoss(o["awp"]["gamma"], "separate", 0.0, equal),)
    run(case, method, methods.get("faal").card.recipe["bn_forwards"], minimal=minimal, plugins=around)


@pytest.mark.proves("faal")
@pytest.mark.parametrize("minimal", [False, True], ids=["official", "minimal"])
@pytest.mark.parametrize("case", cases("faal_step"))
def test_faal_step(case, minimal):
    play_faal(case, minimal)


@pytest.mark.mutant("faal")
@pytest.mark.parametrize(
    ("mutant", "changed", "name"),
    [
        ("equal weights", {"radius": 0.0}, "at_c10"),
        ("equal weights on TRADES", {"radius": 0.0}, "trades_c4_normalised"),
        ("class means instead of batch sums", {"form": "class_normalised"}, "at_c10"),
        ("another host", {"host": "mart"}, "trades_c4_normalised"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_faal_mutant_is_caught(mutant, changed, name):
    with pytest.raises(AssertionError):
        play_faal(shipped("faal_step", name), minimal=True, **changed)


# FRL


def multipliers_of(case, **changed):
    o = case["options"]
    kind = {"rw": "rw", "rw_rm": "rwrm"}[o["function"].split(".")[0]]
    preset = frl.PRESETS[kind]._replace(delta=o["delta_clean"], rate_2=o["rate2"])
    zeros = torch.zeros(o["num_classes"], dtype=torch.float64)
    found = frl.Multipliers(zeros, 40, kind == "rwrm", preset, o["rate1"], o["lim"], "images")
    for name in ("clean", "boundary", "radius"):
        setattr(found, name, tensor(case, case["inputs"]["start"][name]))
    for name, value in changed.items():
        setattr(found, name, value)
    return found


def follow_multipliers(case, **changed):
    """Epoch by epoch: errors to multipliers, weights and radii."""
    o, memory = case["options"], multipliers_of(case, **changed)
    for errors, expected in zip(case["inputs"]["errors"], case["expected"]["epochs"], strict=True):
        classes = [tensor(case, errors[key]) for key in ("class_clean", "class_boundary")]
        totals = [tensor(case, errors[key]) for key in ("total_clean", "total_boundary")]
        totals[1] = totals[1] + o["delta_boundary"] - o["delta_clean"]  # ours allows both errors the same
        memory.move(frl.Errors(*classes, *totals), memory.rate_1)
        for name in ("clean", "boundary", "radius"):
            close(case, f"multipliers_{name}", getattr(memory, name), expected[f"multipliers_{name}"])
        close(case, "weights_clean", frl.class_weights(memory.clean), expected["weights_clean"])
        close(case, "weights_boundary", frl.class_weights(memory.boundary), expected["weights_boundary"])
        radii = frl.radius_factors(memory.radius, memory.preset.largest_radius)
        close(case, "radius_factors", radii, expected["radius_factors"])


@pytest.mark.proves("frl")
@pytest.mark.parametrize("case", [c for k in ("rw", "rw_rm") for c in cases("frl", function=f"{k}.multipliers")])
def test_frl_multipliers(case):
    follow_multipliers(case)


@pytest.mark.proves("frl")
@pytest.mark.parametrize("case", [c for k in ("rw", "rw_rm") for c in cases("frl", function=f"{k}.loss")])
def test_frl_loss(case):
    _, logits = given(case, "nat", "adv")
    w, v = (tensor(case, case["inputs"][f"weights_{term}"]) for term in ("clean", "boundary"))
    loss = frl.weighted_trades(logits["nat"], logits["adv"], labels(case), w, v, case["options"]["beta"])
    close(case, "loss", loss)
    close_gradients(case, loss, logits)


@pytest.mark.proves("frl")
@pytest.mark.parametrize("case", cases("lr_schedules_more", recipe="frl"))
def test_frl_step_size_by_epoch(case):
    o = case["options"]
    memory = frl.Multipliers(torch.zeros(2), o["epochs"], True, frl.PRESETS["rwrm"], o["rate1"], 0.5, "class")
    close(case, "rate1", [memory.rate_in(epoch) for epoch in range(1, o["epochs"] + 1)])


def play_frl(case, minimal=False, equal=(), **changed):
    """A step with the weights and radii of a case; those in ``equal`` are the same for all classes."""
    o, inputs = case["options"], case["inputs"]
    step = {"rw": "shared", "rw_rm": "largest"}[o["function"].split(".")[0]]
    method = build("frl", case, **{"kind": "rwrm", "step": step, "beta": o["beta"], **changed})
    memory = method.memory["multipliers"]
    for name in ("clean", "boundary"):  # multipliers that lead to these weights, up to a common factor
        weights = tensor(case, inputs[f"weights_{name}"])
        setattr(memory, name, torch.zeros_like(weights) if name in equal else weights / weights.sum())
    radii = tensor(case, inputs["radius_factors"])
    memory.radius = torch.zeros_like(radii) if "radius" in equal else radii.log() / 2
    run(case, method, methods.get("frl").card.recipe["bn_forwards"], minimal=minimal)


@pytest.mark.proves("frl")
@pytest.mark.parametrize("minimal", [False, True], ids=["official", "minimal"])
@pytest.mark.parametrize("case", cases("frl_step"))
def test_frl_step(case, minimal):
    play_frl(case, minimal)


@pytest.mark.mutant("frl")
@pytest.mark.parametrize(
    ("mutant", "changed", "name"),
    [
        ("equal weights of the clean term", {"equal": ("clean",)}, "rw_c5"),
        ("equal weights of the KL term", {"equal": ("boundary",)}, "rw_c5"),
        ("equal radii", {"equal": ("radius",)}, "rw_c5"),
        ("the recipe's step with radii", {"step": "shared"}, "rw_rm_c5"),
        ("a step by the largest radius without", {"step": "largest"}, "rw_c5"),
        ("weights divided by class sizes", {"base_weights": "counts"}, "rw_c5"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_frl_mutant_is_caught(mutant, changed, name):
    case = shipped("frl_step", name)
    case["inputs"]["counts"] = [9, 5, 3, 2, 1]
    with pytest.raises(AssertionError):
        play_frl(case, minimal=True, **changed)


@pytest.mark.mutant("frl")
@pytest.mark.parametrize(
    ("mutant", "changed"), [("no limit on the multipliers", {"limit": 100.0}), ("half the rate", {"rate_1": 0.15})]
)
def test_frl_multiplier_mutant_is_caught(mutant, changed):
    with pytest.raises(AssertionError):
        follow_multipliers(shipped("frl", "rw_rm_limit_hit"), **changed)


# MCAT, as released


@pytest.mark.proves("mcat")
@pytest.mark.parametrize("case", cases("mcat_geom", function="trainer.geom"))
def test_mcat_geometry(case):
    weight = tensor(case, case["inputs"]["weight"], grad=True)
    loss = mcat.geometry(weight)
    close(case, "loss", loss)
    close(case, "grad_weight", torch.autograd.grad(loss, weight)[0])


def play_mcat(case, **changed):
    method = build("mcat", case, **{"beta_g": case["options"]["beta_g"], **changed})
    run(case, method, methods.get("mcat").card.recipe["bn_forwards"], make=method.head)
    return method.head.made.weight


@pytest.mark.proves("mcat")
@pytest.mark.parametrize("case", cases("mcat_step"))
def test_mcat_step(case):
    """The official step has the manifold term on; ours has none, and its adversarial examples are the same."""
    assert methods.get("mcat").card.recipe["attack"]["start"] == "none"
    first = tensor(case, case["inputs"]["network"]["params"]["fc.weight"])
    close(case, "loss_geom", mcat.geometry(first), case["expected"]["steps"][0]["loss_geom"])
    play_mcat(case)


@pytest.mark.mutant("mcat")
@pytest.mark.parametrize(("mutant", "changed"), [("no geometry term", {"beta_g": 0.0})])
def test_mcat_mutant_is_caught(mutant, changed):
    with pytest.raises(AssertionError):
        play_mcat(shipped("mcat_step", "c5"), **changed)
