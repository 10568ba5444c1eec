"""Fairness, distillation and sampling: hand-computed values, identities, and what a memory makes of an epoch."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ltrobust_bench.baselines.cfa import method as cfa
from ltrobust_bench.baselines.dafa import method as dafa
from ltrobust_bench.baselines.selfdistill import method as selfdistill

from ltrobust_bench.api import AttackBudget, Network, Output, TrainInfo
from ltrobust_bench.cards import methods
from ltrobust_bench.longtail import balanced_softmax, balanced_subset, kl_divergence

DOUBLE = torch.float64
Y = torch.tensor([0, 0, 0, 1])


def build(slug, counts, epochs=10, **options):
    data = TrainInfo(torch.tensor(counts, dtype=DOUBLE), "cifar10-lt", epochs)
    return methods.get(slug).factory()(methods.get(slug).card.resolve_options("fixed", options), data)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def outputs(clean, adversarial):
    return SimpleNamespace(clean=Output(clean, clean), adversarial=Output(adversarial, adversarial))


def at(epoch, epochs=10):
    return SimpleNamespace(epoch=epoch, epochs=epochs)


def predicting(labels, classes=2):
    logits = 5.0 * F.one_hot(torch.tensor(labels), classes).to(DOUBLE)
    return outputs(logits, logits)


@pytest.mark.proves("cfa")
def test_cfa_by_hand():
    """a = (1/2, 0): eps = (1, 0.5) eps and, with beta = 6, beta' = (6/7, 3/4)."""
    accuracy = torch.tensor([0.5, 0.0], dtype=DOUBLE)
    assert cfa.class_radius(0.1, accuracy, 0.5).tolist() == pytest.approx([0.1, 0.05])
    assert cfa.class_weight(6.0, accuracy, 0.5).tolist() == pytest.approx([6 / 7, 3 / 4])


@pytest.mark.proves("cfa")
def test_cfa_weight_is_trades_up_to_a_factor():
    """With the same share beta / (1 + beta) for all classes the loss is TRADES over (1 + beta)."""
    clean, adversarial = drawn(4, 2), drawn(4, 2, seed=1)
    share = cfa.class_weight(6.0, torch.tensor([0.5, 0.5], dtype=DOUBLE), 0.5)
    trades = F.cross_entropy(clean, Y) + 6.0 * kl_divergence(clean, adversarial).mean()
    assert torch.allclose(cfa.calibrated_trades(share, clean, adversarial, Y), trades / 7)


@pytest.mark.proves("cfa")
@pytest.mark.parametrize(("form", "expected"), [("class", [2 / 3, 0.0]), ("official", [2 / 2, 0.0])])
def test_cfa_counts_an_epoch(form, expected):
    """Two of three images of class 0 and none of class 1 are right; the released code divides by N / C = 2."""
    memory = cfa.RobustAccuracy(torch.tensor([3.0, 1.0], dtype=DOUBLE), form)
    memory.on_step_end(predicting([0, 0]), Y[:2], None)
    memory.on_step_end(predicting([1, 0]), Y[2:], None)
    memory.on_epoch_end(1, None)
    assert memory.last.tolist() == pytest.approx(expected)
    assert memory.correct.sum() == memory.seen.sum() == 0


@pytest.mark.proves("cfa")
def test_cfa_leaves_the_host_alone_before_its_start():
    method = build("cfa", [3, 1], begin=0.5)
    given = AttackBudget(0.1, 0.02, 0.1)
    method.memory["accuracy"].last = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    assert method.attack_budget(given, Y, at(5)) is given
    radius = method.attack_budget(given, Y, at(6))
    assert radius.epsilon.tolist() == pytest.approx([0.15, 0.15, 0.15, 0.05]) and radius.step_size == 0.02
    clean, adversarial = drawn(4, 2), drawn(4, 2, seed=1)
    trades = F.cross_entropy(clean, Y) + 6.0 * kl_divergence(clean, adversarial).mean()
    assert torch.allclose(method.loss(outputs(clean, adversarial), Y, at(5)), trades / 7)
    assert not torch.allclose(method.loss(outputs(clean, adversarial), Y, at(6)), trades / 7)


def tiny_network(value):
    network = Network(torch.nn.Linear(1, 1), torch.nn.Linear(1, 2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    return network


@pytest.mark.proves("cfa")
def test_cfa_average_skips_unfair_epochs_and_replaces_the_network_at_the_end():
    accuracy = cfa.RobustAccuracy(torch.tensor([3.0, 1.0]), "class")
    average = cfa.FairAverage(accuracy, epochs=4, decay=0.75, threshold=0.2)
    network, values = None, []
    for epoch, (value, worst) in enumerate([(0.0, 0.0), (1.0, 0.5), (9.0, 0.1), (2.0, 0.5)], start=1):
        accuracy.last = torch.tensor([1.0, worst])
        network = tiny_network(value)
        average.on_epoch_end(epoch, network)
        values.append(average.average["head.bias"][0].item() if average.average else None)
        if epoch < 4:
            assert network.head.bias[0].item() == value
    assert values == [None, 1.0, 1.0, 1.25]
    assert network.head.bias[0].item() == 1.25
    unfair = cfa.FairAverage(accuracy, epochs=1, decay=0.75, threshold=0.9)
    network = tiny_network(3.0)
    unfair.on_epoch_end(1, network)
    assert network.head.bias[0].item() == 3.0, "no epoch was fair: there is nothing to average"
    off = cfa.FairAverage(accuracy, epochs=1, decay=0.0, threshold=0.2)
    network = tiny_network(3.0)
    off.on_epoch_end(1, network)
    assert network.head.bias[0].item() == 3.0 and off.state_dict() == {}


@pytest.mark.proves("dafa")
def test_dafa_by_hand():
    """S = ((.8, .2), (.4, .6)): class 1 is weaker, w_1 = 1 + .4 * .8, w_0 = 1 - .4 * .8; equal classes keep 1."""
    similarity = torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=DOUBLE)
    assert dafa.class_weights(similarity, 1.0).tolist() == pytest.approx([0.68, 1.32])
    assert dafa.class_weights(similarity, 0.5).tolist() == pytest.approx([0.84, 1.16])
    assert dafa.class_weights(torch.eye(3, dtype=DOUBLE), 1.0).tolist() == [1, 1, 1]


@pytest.mark.proves("dafa")
def test_dafa_weights_do_not_turn_negative_in_the_fixed_track():
    """All classes are taken for class 0, whose published weight is then about 1 - 2."""
    taken = torch.tensor([0, 0, 0, 0, 0, 0])
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    for least, expected in ((None, -1.0), (0.0, 0.0)):
        memory = dafa.Similarity(3, 1, 1.0, torch.zeros(1, dtype=DOUBLE), least)
        memory.on_step_end(predicting(taken.tolist(), classes=3), y, None)
        memory.on_epoch_end(1, None)
        assert memory.weights[0].item() == pytest.approx(expected, abs=0.1)
    assert methods.get("dafa").card.resolve_options("fixed", {})["least"] == 0.0


def test_dafa_weights_are_one_in_the_warm_up_and_fixed_afterwards():
    method = build("dafa", [3, 1], warmup=0.2)
    memory, given = method.memory["similarity"], AttackBudget(0.1, 0.02, 0.1)
    assert memory.last == 2 and method.attack_budget(given, Y, at(1)).epsilon.tolist() == pytest.approx([0.1] * 4)
    memory.on_step_end(predicting([1, 1, 1, 0]), Y, None)  # not the last epoch of the warm-up: not counted
    memory.on_epoch_end(1, None)
    assert memory.seen.sum() == 0 and memory.weights.tolist() == [1, 1]
    memory.on_step_end(predicting([0, 0, 0, 0]), Y, None)  # class 1 is taken for class 0
    memory.on_epoch_end(2, None)
    fixed = memory.weights.tolist()
    assert fixed[1] > 1 > fixed[0] and sum(fixed) == pytest.approx(2)
    memory.on_step_end(predicting([1, 1, 1, 0]), Y, None)
    memory.on_epoch_end(3, None)
    assert memory.weights.tolist() == fixed
    budget = method.attack_budget(given, Y, at(4))
    assert budget.epsilon.tolist() == pytest.approx([0.1 * fixed[0]] * 3 + [0.1 * fixed[1]])
    assert budget.step_size.tolist() == pytest.approx([0.02 * fixed[0]] * 3 + [0.02 * fixed[1]])


@pytest.mark.proves
@pytest.mark.parametrize(("slug", "host"), [("cfa", "at"), ("dafa", "at")])
def test_fairness_on_plain_adversarial_training_starts_as_plain_adversarial_training(slug, host):
    method, logits = build(slug, [3, 1], host=host), drawn(4, 2)
    assert torch.allclose(method.loss(outputs(None, logits), Y, at(1)), F.cross_entropy(logits, Y))


@pytest.mark.proves("selfdistill")
def test_distillation_by_hand():
    """Uniform student, n = (3, 1), label 1: ln 4; the teacher (3/4, 1/4) adds its KL to uniform, ln 2 - H(1/4)."""
    loss = selfdistill.distillation_loss(torch.tensor([3.0, 1.0], dtype=DOUBLE), 2.0)
    teacher = torch.tensor([[math.log(3), 0.0]], dtype=DOUBLE)
    ctx = SimpleNamespace(teacher_logits=lambda: teacher)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    value = loss(outputs(None, torch.zeros(1, 2, dtype=DOUBLE)), torch.tensor([1]), ctx)
    assert value.item() == pytest.approx(math.log(4) + 2 * (math.log(2) - entropy))


@pytest.mark.proves("selfdistill")
def test_distillation_from_oneself_or_with_weight_zero_is_balanced_softmax():
    counts, logits = torch.tensor([3.0, 1.0], dtype=DOUBLE), drawn(4, 2)
    plain = balanced_softmax(counts)(logits, Y)
    other = SimpleNamespace(teacher_logits=lambda: drawn(4, 2, seed=1))
    same = SimpleNamespace(teacher_logits=lambda: logits)
    assert torch.allclose(selfdistill.distillation_loss(counts, 1.0)(outputs(None, logits), Y, same), plain)
    assert torch.allclose(selfdistill.distillation_loss(counts, 0.0)(outputs(None, logits), Y, other), plain)
    assert not torch.allclose(selfdistill.distillation_loss(counts, 1.0)(outputs(None, logits), Y, other), plain)


@pytest.mark.proves("at-balanced")
def test_balanced_subset_cuts_the_head_and_repeats_the_tail():
    labels = np.array([0] * 7 + [1] * 2)
    subset = balanced_subset(labels, 5)
    assert subset[:5].tolist() == [0, 1, 2, 3, 4]
    tail = subset[5:].tolist()
    assert len(tail) == 5 and tail[:4] == [7, 8, 7, 8] and tail[4] in (7, 8)
    assert balanced_subset(labels, 5).tolist() == subset.tolist()


@pytest.mark.proves("at-balanced")
def test_at_balanced_draws_every_class_equally_often():
    method = build("at-balanced", [60, 20, 6], gamma=2.0)
    labels = np.repeat([0, 1, 2], [60, 20, 6])
    order = method.sampler(labels, 100, 1, np.random.default_rng(0))
    assert len(order) >= 100
    assert np.bincount(labels[order[:36]]).tolist() == np.bincount(labels[order[36:72]]).tolist() == [12, 12, 12]
    assert set(order[labels[order] == 0]) == set(range(12))
