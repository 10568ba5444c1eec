"""The methods' mathematics: hand-computed examples of the method notes, literal loops, and known identities."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from ltrobust_bench.baselines.reat import method as reat
from ltrobust_bench.baselines.robal import method as robal

from ltrobust_bench.api import Output, TrainInfo, cross_entropy
from ltrobust_bench.attacks.engine import ascend
from ltrobust_bench.cards import methods
from ltrobust_bench.longtail import balanced_softmax, effective_number, kl_divergence, normalised_inverse

DOUBLE = torch.float64


def info(counts, dataset="cifar10-lt"):
    return TrainInfo(torch.tensor(counts, dtype=DOUBLE), dataset, 100)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@pytest.mark.proves("at-bsl", "reat", "logit-adjust")
def test_balanced_softmax_by_hand():
    counts = torch.tensor([4.0, 2, 1])
    assert balanced_softmax(counts)(torch.zeros(1, 3), torch.tensor([2])).item() == pytest.approx(math.log(7))
    assert balanced_softmax(torch.tensor([3.0, 1]))(torch.zeros(1, 2), torch.tensor([1])).item() == pytest.approx(
        math.log(4)
    )


@pytest.mark.proves("at-bsl", "logit-adjust")
def test_balanced_softmax_is_outer_logit_adjustment_and_plain_ce_on_balanced_data():
    counts, logits, y = torch.tensor([50.0, 7, 2], dtype=DOUBLE), drawn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    prior = (counts / counts.sum()).log()
    assert torch.allclose(balanced_softmax(counts)(logits, y), F.cross_entropy(logits + prior, y))
    equal = torch.full((3,), 9.0, dtype=DOUBLE)
    assert torch.allclose(balanced_softmax(equal)(logits, y), F.cross_entropy(logits, y))
    assert torch.allclose(balanced_softmax(counts, tau=0.0)(logits, y), F.cross_entropy(logits, y))


@pytest.mark.proves("reat")
@pytest.mark.parametrize(
    ("n", "predicted", "effective", "weights"),
    [
        ([3, 1], [3, 1], [2.1111, 1], [0.64286, 1.35714]),
        ([3, 1], [4, 0], [2.4074, 0], [8.3e-6, 1.99999]),
        ([3, 1], [1, 3], [1, 1], [1, 1]),
        ([4, 2], [5, 1], [3.05078, 1], [0.49373, 1.50627]),
    ],
)
def test_reat_weights_by_hand(n, predicted, effective, weights):
    n, predicted = torch.tensor(n, dtype=DOUBLE), torch.tensor(predicted, dtype=DOUBLE)
    assert effective_number(predicted, (n - 1) / n).tolist() == pytest.approx(effective, abs=5e-5)
    assert reat.rbl_weights(n, predicted).tolist() == pytest.approx(weights, abs=6e-5)


@pytest.mark.proves("reat")
def test_reat_first_epoch_weights_on_cifar10():
    n = torch.tensor([5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100], dtype=DOUBLE)
    expected = [0.071, 0.110, 0.170, 0.263, 0.407, 0.629, 0.970, 1.500, 2.316, 3.563]
    weights = reat.rbl_weights(n, n)
    assert weights.tolist() == pytest.approx(expected, abs=6e-4)
    assert weights.mean().item() == pytest.approx(1)


def literal_tail(features, y, counts, tail_classes):
    """The released code's double loop, as the method notes describe it."""
    p = features.softmax(1)
    omega = (counts.sum() / counts).sqrt()
    batch, dims = features.shape
    terms = []
    for i in range(batch):
        if int(y[i]) not in tail_classes:
            continue
        anchor = p[i].detach()
        k = sum((anchor * (anchor.log() - p[j].log())).sum() for j in range(batch)) / (batch * dims)
        c = sum((-1 if y[j] == y[i] else 1) * (omega[y[i]] + omega[y[j]]) for j in range(batch)) / batch
        terms.append(k * c)
    return sum(terms) / len(terms) if terms else features.sum() * 0


@pytest.mark.proves("reat")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [3, 4, 5, 9, 10])
def test_reat_closed_form_is_the_double_loop(classes, seed):
    counts = torch.tensor([int(100 * 0.6**c) + 1 for c in range(classes)], dtype=DOUBLE)
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (12,), generator=generator)
    features = (3 * torch.randn(12, 7, generator=generator, dtype=DOUBLE)).requires_grad_()
    tail = set(range(2 * (classes // 3) + 1, classes))
    is_tail = torch.tensor([c in tail for c in range(classes)])
    ours = reat.tail_term(features, y, (counts.sum() / counts).sqrt(), is_tail)
    literal = literal_tail(features, y, counts, tail)
    assert ours.item() == pytest.approx(literal.item(), rel=1e-10, abs=1e-14)
    a, b = (torch.autograd.grad(v, features, retain_graph=True)[0] for v in (ours, literal))
    assert torch.allclose(a, b, rtol=1e-9, atol=1e-14)


@pytest.mark.proves("reat")
def test_reat_tail_by_hand():
    features = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]], dtype=DOUBLE)
    n = torch.tensor([4, 2, 1, 1], dtype=DOUBLE)
    value = reat.tail_term(features, torch.tensor([3, 0]), (8 / n).sqrt(), torch.tensor([False] * 3 + [True]))
    assert value.item() == pytest.approx(-0.023125, abs=1e-6)


@pytest.mark.proves("reat")
def test_reat_pairwise_form_by_definition():
    features, y = drawn(6, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    omega, is_tail = torch.tensor([1.0, 2, 3], dtype=DOUBLE), torch.tensor([False, False, True])
    p = features.softmax(1)
    total = 0.0
    for i in (2, 3):
        for j in range(6):
            sign = -1 if y[j] == y[i] else 1
            total += sign * (omega[y[i]] + omega[y[j]]) * (p[i] * (p[i] / p[j]).log()).sum() / 6
    assert reat.tail_term(features, y, omega, is_tail, "pairwise").item() == pytest.approx(float(total) / 2)


@pytest.mark.proves("reat")
def test_reat_tail_goes_by_rank_not_by_label():
    """The same data with the labels in another order gives the same loss."""
    counts, order = [40, 20, 9, 4, 2], torch.tensor([3, 0, 4, 2, 1])  # order[old label] = new label
    logits, features, y = drawn(8, 5), drawn(8, 6, seed=1), torch.tensor([0, 1, 2, 3, 4, 4, 3, 0])
    permuted = [0.0] * 5
    for old, new in enumerate(order.tolist()):
        permuted[new] = counts[old]

    def loss(counts, logits, y):
        outputs = SimpleNamespace(adversarial=Output(logits, features))
        return reat.reat_loss(info(counts), "official", "official")(outputs, y, None).item()

    shuffled = torch.empty_like(logits)
    shuffled[:, order] = logits
    assert loss(permuted, shuffled, order[y]) == pytest.approx(loss(counts, logits, y))


@pytest.mark.proves("reat")
@pytest.mark.parametrize(("classes", "first"), [(10, 7), (100, 67), (20, 13), (200, 133), (9, 7), (4, 3)])
def test_reat_official_tail_start(classes, first):
    data = info([float(classes - c) for c in range(classes)])
    y = torch.arange(classes)
    outputs = SimpleNamespace(adversarial=Output(drawn(classes, classes), drawn(classes, 4, seed=2)))
    with_first, without = (
        reat.reat_loss(data, "official", "official")(
            SimpleNamespace(adversarial=Output(outputs.adversarial.logits[s], outputs.adversarial.features[s])),
            y[s],
            None,
        )
        - balanced_softmax(data.counts)(outputs.adversarial.logits[s], y[s])
        for s in (slice(first - 1, first + 1), slice(first - 2, first))
    )
    assert with_first != 0
    assert without == 0


@pytest.mark.proves("reat")
def test_rbl_is_plain_ce_in_eval_mode_whatever_the_counts():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4)).double().eval()
    x, y = torch.rand(16, 3, 4, 4, dtype=DOUBLE), torch.arange(16) % 4
    memory = reat.PredictedCounts(torch.tensor([40.0, 20, 9, 2], dtype=DOUBLE))
    memory.load_state_dict({"last": torch.tensor([60.0, 11, 0, 0]), "current": torch.zeros(4)})
    objective = reat.rebalanced_cross_entropy(memory)
    settings = {"epsilon": 0.1, "step_size": 0.025, "steps": 10, "start": "none"}
    plain = ascend(model, x, y, objective=cross_entropy, **settings)
    rbl = ascend(model, x, y, objective=lambda z, t: objective(z, t, None), **settings)
    assert torch.equal(plain, rbl)


@pytest.mark.proves("reat")
def test_reat_memory_counts_an_epoch_and_then_reweighs():
    counts = torch.tensor([6.0, 3, 1], dtype=DOUBLE)
    memory = reat.PredictedCounts(counts)
    first = memory.weights.clone()
    logits = torch.eye(3, dtype=DOUBLE)[[0, 0, 2, 1]]
    for _ in range(2):
        memory.on_step_end(SimpleNamespace(adversarial=Output(logits, logits)), torch.zeros(4, dtype=torch.int64), None)
    assert memory.current.tolist() == [4, 2, 2]
    assert torch.equal(memory.weights, first)  # constant within an epoch
    memory.on_epoch_end(1, None)
    assert memory.last.tolist() == [4, 2, 2] and memory.current.tolist() == [0, 0, 0]
    assert torch.equal(memory.weights, reat.rbl_weights(counts, torch.tensor([4.0, 2, 2], dtype=DOUBLE)))


@pytest.mark.proves("reat")
def test_reat_counts_after_the_update_when_asked():
    before, after = (torch.eye(2, dtype=DOUBLE)[[c]] for c in (0, 1))
    outputs = SimpleNamespace(adversarial=Output(before, before), after_update=lambda: Output(after, after))
    for when, expected in (("before", [1, 0]), ("after", [0, 1])):
        memory = reat.PredictedCounts(torch.tensor([2.0, 1]), when)
        memory.on_step_end(outputs, torch.tensor([0]), None)
        assert memory.current.tolist() == expected


@pytest.mark.proves("robal")
def test_robal_by_hand():
    """methods.md 3.8."""
    n = torch.tensor([8, 2, 1], dtype=DOUBLE)
    margins = robal.class_margins(n, 0.1, 0.3, 10)
    bias = robal.class_bias(n, 1.5)
    assert margins.tolist() == pytest.approx([0.16238, 0.12079, 0.1], abs=1e-5)
    assert bias.tolist() == pytest.approx([-0.47768, -2.55712, -3.59684], abs=1e-5)
    cosines = torch.tensor([[0.5, 0.4, 0.3]], dtype=DOUBLE)
    outputs = SimpleNamespace(clean=Output(cosines, cosines), adversarial=Output(cosines, cosines))
    for label, expected in ((0, 0.233963), (2, 6.166223)):
        loss = robal.robal_loss(margins, bias, 10, 6.0)(outputs, torch.tensor([label]), None)
        assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.proves("robal")
@pytest.mark.parametrize(
    ("dataset", "variant", "evaluate_at", "scale", "tau_p", "gamma"),
    [
        ("cifar10-lt", "N", "s", 10, 0.1, 1 / 32),
        ("cifar10-lt", "R", "s", 10, 0.0, 1 / 32),
        ("cifar10-lt", "R", "official", 1, 0.0, 1 / 32),
        ("cifar100-lt", "N", "official", 10, 1.5, 1 / 32),
        ("cifar100-lt", "R", "s", 10, 1.7, 1 / 16),
    ],
)
def test_robal_presets_deploy(dataset, variant, evaluate_at, scale, tau_p, gamma):
    data = info([8, 2, 1], dataset)
    options = methods.get("robal").card.resolve_options("fixed", {"variant": variant, "evaluate_at": evaluate_at})
    built = methods.get("robal").factory()(options, data)
    head = built.head(4, 3).double()
    assert head.gamma == gamma and head.scale == 1
    h = drawn(2, 4)
    prior = (data.counts / data.counts.sum()).log()
    assert torch.allclose(built.deploy(head, data)(h), scale * head(h) - tau_p * prior)


@pytest.mark.proves("robal")
def test_robal_kl_is_weak_at_scale_one():
    """methods.md 3.7: cosines are nearly uniform after softmax."""
    clean, adversarial = 2 * torch.rand(2, 50, 10, generator=torch.Generator().manual_seed(0), dtype=DOUBLE) - 1
    assert kl_divergence(10 * clean, 10 * adversarial).mean() > 20 * kl_divergence(clean, adversarial).mean()


def test_kl_is_zero_for_equal_and_invariant_to_shifts():
    a, b = drawn(5, 4), drawn(5, 4, seed=1)
    assert torch.allclose(kl_divergence(a, a), torch.zeros(5, dtype=DOUBLE), atol=1e-15)
    assert torch.allclose(kl_divergence(a, b), kl_divergence(a + 3, b - 7))
    assert (kl_divergence(a, b) > 0).all()


@pytest.mark.proves("trades")
def test_trades_without_perturbation_is_clean_cross_entropy():
    built = methods.get("trades").factory()({"beta": 6.0}, info([3, 2]))
    logits, y = drawn(4, 2), torch.tensor([0, 1, 0, 1])
    same = SimpleNamespace(clean=Output(logits, logits), adversarial=Output(logits, logits))
    assert torch.allclose(built.loss(same, y, None), F.cross_entropy(logits, y))


def test_normalised_inverse_has_mean_one_and_no_preference_for_equal_classes():
    assert normalised_inverse(torch.tensor([2.0, 2, 2])).tolist() == pytest.approx([1, 1, 1])
    assert normalised_inverse(torch.rand(7, dtype=DOUBLE) + 0.1).mean().item() == pytest.approx(1)


def test_ranks_go_by_count_with_ties_by_label():
    assert info([5, 9, 5, 1]).ranks.tolist() == [1, 0, 2, 3]
