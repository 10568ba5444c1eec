"""The mathematics of the defenses of 2021 to 2026: worked examples of the method notes, literal loops, identities."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from ltrobust_bench.baselines.calfat import method as calfat
from ltrobust_bench.baselines.ikl_at import method as ikl
from ltrobust_bench.baselines.mail import method as mail

from ltrobust_bench.api import AttackBudget, Output, TrainInfo
from ltrobust_bench.cards import methods
from ltrobust_bench.longtail import balanced_softmax, kl_divergence

DOUBLE = torch.float64


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def build(slug, counts, epochs=10, track="fixed", **options):
    data = TrainInfo(torch.tensor(counts, dtype=DOUBLE), "cifar10-lt", epochs)
    return methods.get(slug).factory()(methods.get(slug).card.resolve_options(track, options), data)


def forwards(clean=None, adversarial=None):
    """Outputs of a step with these logits."""
    given = {"clean": clean, "adversarial": adversarial}
    return SimpleNamespace(**{name: Output(z, z) for name, z in given.items() if z is not None})


def at(epoch=1, epochs=10, natural=None):
    """The step's context."""
    return SimpleNamespace(epoch=epoch, epochs=epochs, natural_logits=lambda: natural)


# IKL-AT and GKL-AT


@pytest.mark.proves("ikl-at")
def test_ikl_by_hand():
    clean, adversarial = torch.tensor([[1.0, 0.0]], dtype=DOUBLE), torch.zeros(1, 2, dtype=DOUBLE)
    weights = torch.full((1, 2), 0.5, dtype=DOUBLE)
    assert ikl.squared_differences(clean, adversarial, weights).item() == pytest.approx(0.125)
    assert ikl.soft_cross_entropy(clean, adversarial).item() == pytest.approx(math.log(2))
    loss = ikl.decoupled_divergence(clean, adversarial, weights, 4.0, 20.0)
    assert loss.item() == pytest.approx(5.27259, abs=5e-6)


@pytest.mark.proves("ikl-at")
@pytest.mark.parametrize("gamma", [1.0, 0.4])
def test_ikl_squares_are_the_double_sum_over_pairs(gamma):
    clean, adversarial, weights = drawn(6, 5), drawn(6, 5, seed=1), drawn(6, 5, seed=2).softmax(1) ** gamma
    squares, sizes = [], []
    for i in range(6):
        pairs = [
            weights[i, j] * weights[i, k] * (clean[i, j] - clean[i, k] - adversarial[i, j] + adversarial[i, k]) ** 2
            for j in range(5)
            for k in range(5)
        ]
        squares.append(float(sum(pairs)) / 4)
        sizes.append(sum(w.item() for w in weights[i]) ** 2)
    assert ikl.squared_differences(clean, adversarial, weights).tolist() == pytest.approx(squares, rel=1e-12)
    found = ikl.decoupled_divergence(clean, adversarial, weights, 0.0, 1.0)
    assert found.item() == pytest.approx(sum(squares) / sum(sizes), rel=1e-12)
    if gamma == 1:  # IKL's mean over images is GKL's quotient
        assert found.item() == pytest.approx(sum(squares) / 6, rel=1e-12)


@pytest.mark.proves("ikl-at")
def test_ikl_squares_see_no_constant_and_no_equal_logits():
    clean, adversarial, weights = drawn(4, 3), drawn(4, 3, seed=1), drawn(4, 3, seed=2).softmax(1)
    shifted = adversarial + drawn(4, 1, seed=3)
    usual = ikl.squared_differences(clean, adversarial, weights)
    assert torch.allclose(ikl.squared_differences(clean, shifted, weights), usual, rtol=1e-10)
    far = (clean + 1000).float()  # nor does rounding, as it would if squares of differences were subtracted
    single = ikl.squared_differences(far, adversarial.float(), weights.float())
    assert torch.allclose(single.double(), ikl.squared_differences(far.double(), adversarial, weights), rtol=1e-3)
    assert ikl.squared_differences(clean, clean, weights).tolist() == [0.0] * 4


@pytest.mark.proves("ikl-at")
def test_ikl_gradients_go_to_both_logits_but_not_through_the_soft_labels():
    clean, adversarial = drawn(4, 3).requires_grad_(), drawn(4, 3, seed=1).requires_grad_()
    soft = ikl.soft_cross_entropy(clean, adversarial).sum()
    assert torch.autograd.grad(soft, [clean, adversarial], allow_unused=True)[0] is None
    (gradient,) = torch.autograd.grad(kl_divergence(clean.detach(), adversarial).sum(), adversarial)
    (ours,) = torch.autograd.grad(ikl.soft_cross_entropy(clean, adversarial).sum(), adversarial)
    assert torch.allclose(ours, gradient)  # the entropy of the labels is a constant
    squares = ikl.squared_differences(clean, adversarial, torch.full((4, 3), 1 / 3, dtype=DOUBLE)).sum()
    a, b = torch.autograd.grad(squares, [clean, adversarial])
    assert torch.allclose(a, -b) and a.abs().min() > 0


@pytest.mark.proves("ikl-at")
def test_ikl_with_balanced_softmax_outside():
    """Ours; the rest of the loss is the same, and on balanced data so is all of it."""
    clean, adversarial, y = drawn(5, 3), drawn(5, 3, seed=1), torch.tensor([0, 1, 2, 1, 0])
    outputs, counts = forwards(clean, adversarial), [40, 9, 2]
    plain, balanced = (build("ikl-at", counts, outer=kind).loss(outputs, y, at()) for kind in ("ce", "bsl"))
    change = balanced_softmax(torch.tensor(counts))(clean, y) - F.cross_entropy(clean, y)
    assert (balanced - plain).item() == pytest.approx(change.item())
    same, other = (build("ikl-at", [7, 7, 7], outer=kind).loss(outputs, y, at()) for kind in ("ce", "bsl"))
    assert same.item() == pytest.approx(other.item())


@pytest.mark.proves("ikl-at")
def test_ikl_radius_grows_over_the_epochs_where_asked():
    given, y = AttackBudget(0.1, 0.05, 0.1), torch.tensor([0])
    assert build("ikl-at", [4, 2]).attack_budget(given, y, at(3)) == given
    grown = build("ikl-at", [4, 2], radius_ramp=True).attack_budget(given, y, at(3))
    assert grown == pytest.approx((0.03, 0.015, 0.03))


@pytest.mark.proves("ikl-at")
def test_ikl_official_attack_is_the_soft_cross_entropy_up_to_ten_classes():
    for classes, joint in ((10, False), (11, True)):
        natural, logits, y = drawn(4, classes), drawn(4, classes, seed=1), torch.arange(4)
        found = build("ikl-at", [5] * classes, attack="official").objective(logits, y, at(natural=natural))
        expected = build("ikl-at", [5] * classes, attack="joint" if joint else "ce")
        assert torch.equal(found, expected.objective(logits, y, at(natural=natural)))
        soft = ikl.soft_cross_entropy(natural, logits)
        assert torch.equal(found, soft) is not joint


# CalFAT


@pytest.mark.proves("calfat")
def test_calfat_by_hand():
    prior = calfat.class_prior(torch.tensor([3.0, 1.0], dtype=DOUBLE), 0.1)
    loss = calfat.calibrated_cross_entropy(prior, 10.0)(torch.zeros(1, 2, dtype=DOUBLE), torch.tensor([1]))
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)


@pytest.mark.proves("calfat")
def test_calfat_is_balanced_softmax_of_ten_times_the_logits():
    counts, z, y = [50, 7, 2], drawn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    expected = balanced_softmax(torch.tensor(counts))(10 * z, y)
    assert build("calfat", counts).loss(forwards(adversarial=z), y, at()).item() == pytest.approx(expected.item())


@pytest.mark.proves("calfat")
def test_calfat_attack_is_trades_on_balanced_data_and_another_on_a_long_tail():
    natural, z, y = drawn(6, 3), drawn(6, 3, seed=1), torch.tensor([0, 1, 2, 2, 1, 0])
    plain = kl_divergence(natural, z)
    for counts, alike in (([8, 8, 8], True), ([50, 7, 2], False)):
        assert torch.allclose(build("calfat", counts).objective(z, y, at(natural=natural)), plain) is alike


# MAIL


@pytest.mark.proves("mail")
def test_mail_by_hand():
    logits = torch.tensor([[math.log(3), 0.0]] * 2, dtype=DOUBLE)
    y = torch.tensor([0, 1])
    assert mail.probability_margins(logits, y).tolist() == pytest.approx([-0.5, 0.5])
    assert mail.margin_weights(logits, y, -0.5, 10.0).tolist() == pytest.approx([1.36e-4, 1.5], rel=2e-3)


@pytest.mark.proves("mail")
def test_mail_margins_lie_between_sure_right_and_sure_wrong():
    logits = torch.tensor([[60.0, 0, 0], [60.0, 0, 0], [0.0, 0, 0]], dtype=DOUBLE)
    assert mail.probability_margins(logits, torch.tensor([0, 2, 1])).tolist() == pytest.approx([-1, 1, 0])
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0))
    z, y = drawn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    moved = torch.empty_like(z)
    moved[:, order] = z
    assert torch.allclose(mail.probability_margins(moved, order[y]), mail.probability_margins(z, y))


@pytest.mark.proves("mail")
def test_mail_weights_carry_no_gradient():
    z, y = drawn(5, 3).requires_grad_(), torch.tensor([0, 1, 2, 2, 1])
    outputs = forwards(adversarial=z)
    (found,) = torch.autograd.grad(build("mail", [4, 2, 1], host="at").loss(outputs, y, at(10)), z)
    weights = mail.margin_weights(z, y, -0.5, 10.0).detach()
    (expected,) = torch.autograd.grad((weights * F.cross_entropy(z, y, reduction="none")).mean(), z)
    assert torch.allclose(found, expected)


@pytest.mark.proves("mail")
@pytest.mark.parametrize("host", ["at", "trades"])
def test_mail_in_the_burn_in_is_its_host(host):
    clean, z, y = drawn(5, 3), drawn(5, 3, seed=1), torch.tensor([0, 1, 2, 2, 1])
    outputs = forwards(clean, z)
    plain = build(host, [4, 2, 1], **({"beta": 5.0} if host == "trades" else {})).loss(outputs, y, at())
    method = build("mail", [4, 2, 1], host=host)
    for epoch in range(1, 11):  # 76 of 120 epochs are the first 6 of 10, and a third of the 7th
        assert (method.loss(outputs, y, at(epoch)).item() == pytest.approx(plain.item())) is (epoch <= 7)


@pytest.mark.proves("mail")
def test_mail_normalised_keeps_the_size_of_the_loss():
    """Ours: where all images weigh the same, the weighted loss is the host's."""
    z, y = drawn(1, 3).expand(4, 3), torch.tensor([1] * 4)
    plain = F.cross_entropy(z, y).item()
    for normalise, alike in ((True, True), (False, False)):
        loss = build("mail", [4, 2, 1], host="at", normalise=normalise).loss(forwards(adversarial=z), y, at(10))
        assert (loss.item() == pytest.approx(plain)) is alike
