"""What sets each method apart, computed literally from its formula; and a mutant without it fails the same check.

Methods are built through the registry with the options that users get. Those whose whole optimiser step is compared
with the official code's have their mutants there (``tests/golden/test_golden_steps.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ltrobust_bench import longtail
from ltrobust_bench.api import Method, Network, Output, TrainInfo, adversarial, always, everything, linear, shuffle
from ltrobust_bench.cards import methods

DOUBLE = torch.float64
COUNTS = [16, 4, 1]
LABELS = torch.tensor([0, 0, 2, 1, 0, 2])
EPOCHS = 10


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


CLEAN, ADVERSARIAL, TEACHER, GUIDE = (2 * drawn(6, 3, seed=s) for s in (1, 2, 3, 4))
INFO = TrainInfo(torch.tensor(COUNTS, dtype=DOUBLE), "cifar10-lt", EPOCHS)


def build(slug, **options) -> Method:
    return methods.get(slug).factory()(methods.get(slug).card.resolve_options("fixed", options), INFO)


def loss_of(method, epoch=EPOCHS):
    outputs = SimpleNamespace(
        x=CLEAN,
        clean=Output(CLEAN, CLEAN),
        adversarial=Output(ADVERSARIAL, ADVERSARIAL),
        companion=lambda images: Output(GUIDE, GUIDE) if images is CLEAN else None,
    )
    ctx = SimpleNamespace(epoch=epoch, epochs=EPOCHS, teacher_logits=lambda: TEACHER)
    return method.loss(outputs, LABELS, ctx).item()


def cross_entropies(z):
    return [(z[i].exp().sum().log() - z[i, y]).item() for i, y in enumerate(LABELS.tolist())]


def weighted_mean(weights):
    terms = [(weights[y], loss) for y, loss in zip(LABELS.tolist(), cross_entropies(ADVERSARIAL), strict=True)]
    return sum(w * loss for w, loss in terms) / sum(w for w, _ in terms)


def effective(beta):
    raw = [(1 - beta) / (1 - beta**n) for n in COUNTS]
    return [3 * w / sum(raw) for w in raw]


def sigmoid_focal(weights, gamma):
    total = 0.0
    for i, y in enumerate(LABELS.tolist()):
        for k in range(3):
            p = 1 / (1 + math.exp(-(1 if k == y else -1) * ADVERSARIAL[i, k].item()))
            total -= weights[y] * (1 - p) ** gamma * math.log(p)
    return total / len(LABELS)


def loss_is(expected: Callable[[], float], epoch: int = EPOCHS):
    def check(method):
        assert loss_of(method, epoch) == pytest.approx(expected(), rel=1e-9)

    return check


def erm(method):
    assert not any(method.crafts(epoch, EPOCHS) for epoch in (1, EPOCHS))
    assert loss_of(method) == pytest.approx(sum(cross_entropies(CLEAN)) / 6)


def features_and_head(method, dims=4):
    torch.manual_seed(0)
    head = method.head(dims, 3).double()
    return drawn(5, dims, seed=7), head


def cosines(h, weight, gamma=0.0):
    weight = weight.detach()
    return torch.tensor([[torch.dot(a, w) / (a.norm() * (w.norm() + gamma)) for w in weight] for a in h], dtype=DOUBLE)


def cosine(method):
    h, head = features_and_head(method)
    assert torch.allclose(head(h), 16.0 * cosines(h, head.weight))
    assert loss_of(method) == pytest.approx(sum(cross_entropies(ADVERSARIAL)) / 6)


def cosine_margin(method):
    h, head = features_and_head(method)
    assert torch.allclose(head(h), cosines(h, head.weight))
    shifted = 10.0 * ADVERSARIAL.clone()
    for i, y in enumerate(LABELS.tolist()):
        shifted[i, y] -= 10.0 * 0.2
    assert loss_of(method) == pytest.approx(sum(cross_entropies(shifted)) / 6)


def tde(method):
    h, head = features_and_head(method)
    head.train()
    logits = head(h)
    assert torch.allclose(logits, 16.0 * cosines(h, head.weight, 1 / 32))
    head(h)
    mean = sum(a / a.norm() for a in h) / len(h)
    direction = 0.9 * mean + mean
    assert torch.allclose(head.direction, direction)
    rows = []
    for a in h:
        unit = a / a.norm()
        rest = unit - 0.1 * torch.dot(unit, direction / direction.norm()) * direction
        rows.append([16.0 * torch.dot(rest, w) / (w.norm() + 1 / 32) for w in head.weight.detach()])
    network = method.deploy(Network(nn.Identity(), head), INFO).eval()
    assert torch.allclose(network(h), torch.tensor(rows, dtype=DOUBLE))


def epochs_of(method, labels, draws, epochs=(1,)):
    generator = np.random.default_rng(0)
    orders = [method.sampler(labels, draws, epoch, generator)[:draws] for epoch in epochs]
    return [np.bincount(labels[order], minlength=3) / len(order) for order in orders]


MANY = np.repeat(np.arange(3), [1600, 400, 100])


def frequencies_are(*expected, epochs=(1,), tolerance=0.02):
    def check(method):
        for found, wanted in zip(epochs_of(method, MANY, 30_000, epochs), expected, strict=True):
            assert np.abs(found - wanted).max() < tolerance

    return check


def finished(dims=4):
    torch.manual_seed(1)
    return Network(nn.Identity(), nn.Linear(dims, 3)).double()


def deploys(expected):
    def check(method):
        network, h = finished(), drawn(5, 4, seed=8)
        assert torch.allclose(method.deploy(network, INFO)(h), expected(network.head.weight, network.head.bias, h))

    return check


def trains_only(*names):
    def check(method):
        torch.manual_seed(0)
        network = Network(nn.Linear(2, 4), method.head(4, 3))
        chosen = {id(p) for p in method.trains(network)}
        assert {name for name, p in network.named_parameters() if id(p) in chosen} == set(names)

    return check


def both(*checks):
    def check(method):
        for one in checks:
            one(method)

    return check


def kl(teacher, student):
    p, q = teacher.softmax(1), student.softmax(1)
    return [(a * (a / b).log()).sum().item() for a, b in zip(p, q, strict=True)]


def plain(z):
    return sum(cross_entropies(z)) / 6


def balanced(z):
    return sum(cross_entropies(z + torch.tensor(COUNTS, dtype=DOUBLE).log())) / 6


def guided(beta):
    squared = sum((a - g) ** 2 for a, g in zip(ADVERSARIAL.flatten().tolist(), GUIDE.flatten().tolist(), strict=True))
    return sum(cross_entropies(GUIDE)) / 6 + squared / 18 + beta * sum(kl(CLEAN, ADVERSARIAL)) / 6


EQUAL = [1 / 3] * 3
NATURAL = [n / 2100 for n in (1600, 400, 100)]
INVERSE = [3 * (1 / n) / sum(1 / m for m in COUNTS) for n in COUNTS]
TEMPERATURES = torch.tensor([(16 / n) ** 0.3 for n in COUNTS], dtype=DOUBLE)
PRIOR = torch.tensor([n / 21 for n in COUNTS], dtype=DOUBLE)
PLAIN = adversarial(F.cross_entropy)


def without(**parts):
    return lambda method: replace(method, **parts)


def plain_bias(method):
    """Focal loss with the usual start of the bias."""
    return replace(method, head=linear)


def focal(method):
    loss_is(lambda: sigmoid_focal([1, 1, 1], 2.0))(method)
    _, head = features_and_head(method)
    assert head.bias.tolist() == pytest.approx([-math.log((1 - p) / p) for p in PRIOR.tolist()], rel=1e-6)


CHECKS = {
    # name: (method, options, check, {mutant: how it is made, from the method or by other options})
    "erm": ("erm", {}, erm, {"an attack": without(crafts=always), "loss on attacked images": without(loss=PLAIN)}),
    "reweight inverse": (
        "reweight",
        {},
        loss_is(lambda: weighted_mean(INVERSE)),
        {"no class weights": without(loss=PLAIN)},
    ),
    "reweight effective": (
        "reweight",
        {"weights": "effective"},
        loss_is(lambda: weighted_mean(effective(0.9999))),
        {"no class weights": without(loss=PLAIN)},
    ),
    "focal": (
        "focal",
        {},
        focal,
        {"no focusing": {"gamma": 0.0}, "the usual starting bias": plain_bias, "another form": {"form": "ldam"}},
    ),
    "cb-focal": (
        "cb-focal",
        {},
        loss_is(lambda: sigmoid_focal(effective(0.9999), 2.0)),
        {"no class weights": {"beta": 0.0}, "no focusing": {"gamma": 0.0}},
    ),
    "cdt": (
        "cdt",
        {},
        loss_is(lambda: sum(cross_entropies(ADVERSARIAL / TEMPERATURES)) / 6),
        {"no temperatures": {"tau": 0.0}},
    ),
    "logit-adjust": ("logit-adjust", {}, loss_is(lambda: balanced(ADVERSARIAL)), {"no prior": {"tau": 0.0}}),
    "cosine": ("cosine", {}, cosine, {"a linear head": without(head=linear), "no scale": {"scale": 1.0}}),
    "cosine with a margin": (
        "cosine",
        {"margin": 0.2, "scale": 10.0},
        cosine_margin,
        {"hardly a margin": {"margin": 1e-3, "scale": 10.0}},
    ),
    "tde": ("tde", {}, tde, {"nothing removed at inference": {"alpha": 0.0}, "gamma left out": {"gamma": 0.0}}),
    "resample class-aware": ("resample", {}, frequencies_are(EQUAL), {"plain shuffling": without(sampler=shuffle)}),
    "resample square-root": (
        "resample",
        {"kind": "square-root"},
        frequencies_are(np.sqrt([1600, 400, 100]) / 70),
        {"equal classes at once": {"kind": "class-aware"}, "plain shuffling": without(sampler=shuffle)},
    ),
    "resample progressive": (
        "resample",
        {"kind": "progressive"},
        frequencies_are([0.9 * n / 2100 + 0.1 / 3 for n in (1600, 400, 100)], EQUAL, epochs=(1, EPOCHS)),
        {"equal classes from the start": {"kind": "class-aware"}, "plain shuffling": without(sampler=shuffle)},
    ),
    "tailguard": (
        "tailguard",
        {},
        both(
            frequencies_are(NATURAL, EQUAL, epochs=(1, EPOCHS)),
            frequencies_are(NATURAL, EQUAL, epochs=(7, 8)),
            loss_is(lambda: plain(ADVERSARIAL), 1),
            loss_is(lambda: plain(ADVERSARIAL)),
        ),
        {"balanced from the start": {"begin": 0.0}, "never balanced": {"begin": 1.0}, "earlier": {"begin": 0.5}},
    ),
    "tailguard with a prior": (
        "tailguard",
        {"tau": 1.0},
        both(loss_is(lambda: balanced(ADVERSARIAL), 7), loss_is(lambda: plain(ADVERSARIAL), 8)),
        {"no prior": {"tau": 0.0}, "the prior to the end": {"begin": 1.0, "tau": 1.0}},
    ),
    "crt": (
        "crt",
        {},
        both(frequencies_are(EQUAL), trains_only("head.weight", "head.bias")),
        {"plain shuffling": without(sampler=shuffle), "a backbone that learns": without(trains=everything)},
    ),
    "rw-fine": (
        "rw-fine",
        {},
        loss_is(lambda: sigmoid_focal(effective(0.9999), 2.0)),
        {"no class weights": {"beta": 0.0}, "plain cross-entropy": without(loss=PLAIN)},
    ),
    "lws": (
        "lws",
        {},
        both(frequencies_are(EQUAL), trains_only("head.scales")),
        {"plain shuffling": without(sampler=shuffle), "weights that learn": without(trains=everything)},
    ),
    "tau-norm": (
        "tau-norm",
        {"tau": 1.5},
        deploys(lambda w, b, h: torch.stack([h @ (row / row.norm() ** 1.5) for row in w], dim=1)),
        {"tau of 0": {"tau": 0.0}},
    ),
    "logit-adjust-posthoc": (
        "logit-adjust-posthoc",
        {"tau": 0.7},
        deploys(lambda w, b, h: h @ w.T + b - 0.7 * PRIOR.log()),
        {"no prior": {"tau": 0.0}},
    ),
    "cdt-posthoc": (
        "cdt-posthoc",
        {"tau": 0.3},
        deploys(lambda w, b, h: (h @ w.T + b) / torch.tensor([n**0.3 for n in COUNTS], dtype=DOUBLE)),
        {"no divisors": {"tau": 0.0}},
    ),
    "at-balanced": ("at-balanced", {}, frequencies_are(EQUAL), {"plain shuffling": without(sampler=shuffle)}),
    "lbgat": (
        "lbgat",
        {},
        loss_is(lambda: guided(6.0)),
        {"no TRADES term": {"beta": 0.0}, "plain cross-entropy": without(loss=PLAIN)},
    ),
    "lbgat without TRADES' term": ("lbgat", {"beta": 0.0}, loss_is(lambda: guided(0.0)), {"with it": {"beta": 6.0}}),
    "selfdistill": (
        "selfdistill",
        {},
        loss_is(lambda: balanced(ADVERSARIAL) + sum(kl(TEACHER, ADVERSARIAL)) / 6),
        {"no teacher": {"weight": 0.0}, "plain cross-entropy": without(loss=PLAIN)},
    ),
}


@pytest.mark.proves
@pytest.mark.parametrize(
    ("slug", "options", "check"), [pytest.param(s, o, c, id=name) for name, (s, o, c, _) in CHECKS.items()]
)
def test_the_formula(slug, options, check):
    check(build(slug, **options))


MUTANTS = [
    pytest.param(slug, options, check, mutant, change, id=f"{name}: {mutant}")
    for name, (slug, options, check, mutants) in CHECKS.items()
    for mutant, change in mutants.items()
]


@pytest.mark.mutant
@pytest.mark.parametrize(("slug", "options", "check", "mutant", "change"), MUTANTS)
def test_formula_mutant_is_caught(slug, options, check, mutant, change):
    made = build(slug, **{**options, **change}) if isinstance(change, dict) else change(build(slug, **options))
    with pytest.raises(AssertionError):
        check(made)


@pytest.mark.proves("ldam")
def test_deferred_weights_before_their_epoch_are_none():
    """DRW before its epoch is the unweighted loss, and from then on it is not."""
    for epoch in range(1, EPOCHS + 1):
        deferred, plain = (loss_of(build("ldam", **o), epoch) for o in ({"drw_start": 0.5}, {}))
        assert (deferred == plain) == (epoch < EPOCHS / 2)


@pytest.mark.proves("taet")
def test_equalisation_does_not_ask_how_absent_classes_count_when_none_is():
    zero, skip = (build("taet", absent=absent) for absent in ("zero", "skip"))
    assert loss_of(zero) == pytest.approx(loss_of(skip))

    def of_two_classes(method):
        outputs = SimpleNamespace(adversarial=Output(ADVERSARIAL[:2], ADVERSARIAL[:2]))
        return method.loss(outputs, LABELS[1:3], SimpleNamespace(epoch=EPOCHS, epochs=EPOCHS)).item()

    assert of_two_classes(zero) != pytest.approx(of_two_classes(skip))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("loss", [longtail.sigmoid_focal, longtail.softmax_focal])
def test_focal_gradients_are_finite_for_sure_predictions(loss, gamma):
    logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0], [0.0, 0.0]], requires_grad=True)
    value = loss(logits, torch.tensor([0, 0, 1]), gamma)
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()


def test_shuffling_alone_has_the_datas_frequencies():
    """The check that mutants with plain shuffling fail is not failed by its own counting."""
    frequencies_are(NATURAL)(replace(build("resample"), sampler=shuffle))
