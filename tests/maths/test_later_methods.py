"""The mathematics of the defenses of 2021 to 2026: worked examples of the method notes, literal loops, identities."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ltrobust_bench.baselines.calfat import method as calfat
from ltrobust_bench.baselines.faal import method as faal
from ltrobust_bench.baselines.frl import method as frl
from ltrobust_bench.baselines.ikl_at import method as ikl
from ltrobust_bench.baselines.mail import method as mail
from ltrobust_bench.baselines.mcat import method as mcat

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


# FAAL


@pytest.mark.proves("faal")
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_faal_weights_of_two_classes(size):
    """Only which value is larger matters."""
    found = faal.worst_distribution(torch.tensor([size, -size / 3], dtype=DOUBLE), 0.5)
    assert found.tolist() == pytest.approx([0.897530, 0.102470], abs=1e-6)


@pytest.mark.proves("faal")
def test_faal_weights_by_hand():
    k = torch.tensor([46, 30, 19, 12, 8, 5, 3, 2, 2, 1], dtype=DOUBLE)
    m = torch.linspace(-0.6, 0.6, 10, dtype=DOUBLE)
    official = [0.006, 0.012, 0.022, 0.044, 0.080, 0.128, 0.158, 0.168, 0.223, 0.158]
    ours = [0.024, 0.027, 0.031, 0.035, 0.042, 0.051, 0.066, 0.092, 0.155, 0.477]
    assert faal.worst_distribution(k * m, 0.5).tolist() == pytest.approx(official, abs=6e-4)
    assert faal.worst_distribution(m, 0.5).tolist() == pytest.approx(ours, abs=6e-4)


@pytest.mark.proves("faal")
def test_faal_released_form_trains_on_classes_that_are_not_there():
    k, m = torch.zeros(10, dtype=DOUBLE), torch.full((10,), -1.0, dtype=DOUBLE)
    k[:3], m[:3] = torch.tensor([6.0, 3, 1]), torch.tensor([-0.9, -0.7, -0.4])
    weights = faal.worst_distribution(k * m, 0.5)
    assert weights[3:].sum().item() == pytest.approx(0.957, abs=5e-4)
    assert (10 / 10 * (k * weights).sum()).item() == pytest.approx(0.074, abs=5e-4)  # C / B times sum k_c p_c


@pytest.mark.proves("faal")
@pytest.mark.parametrize("radius", [1e-6, 0.1, 0.5, 3.0])
@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_faal_weights_solve_their_problem(classes, radius):
    """On the sphere KL(u || p) = r, of the form 1 / (nu - a): the conditions of optimality of a concave problem."""
    values = {
        "drawn": drawn(classes, seed=classes),
        "one above": torch.eye(classes, dtype=DOUBLE)[0],
        "one below": -torch.eye(classes, dtype=DOUBLE)[0],
        "nearly equal": 1 + 1e-12 * drawn(classes, seed=1),
    }
    for name, a in values.items():
        p = faal.worst_distribution(a, radius)
        assert p.min() >= 0 and p.sum().item() == pytest.approx(1, abs=1e-12), name
        if p.min() > 0:  # a tail of 1e-300 is nothing
            assert (-math.log(classes) - p.log().mean()).item() == pytest.approx(radius, rel=1e-6, abs=1e-9), name
        if name == "drawn":
            a_plus = a + 1 / (p * ((1 / p[a.argmax()] - 1 / p[a.argmin()]) / (a.min() - a.max())))
            assert torch.allclose(a_plus, a_plus[0].expand(classes), rtol=1e-6)  # = nu for all


@pytest.mark.proves("faal")
def test_faal_weights_beat_every_other_distribution_within_reach():
    a, radius = torch.tensor([0.3, -0.2, 0.1, -0.4], dtype=DOUBLE), 0.2
    best = (a * faal.worst_distribution(a, radius)).sum()
    others = drawn(20_000, 4, seed=3).mul(0.9).softmax(dim=1)
    within = -math.log(4) - others.log().mean(dim=1) <= radius
    assert within.sum() > 1000
    assert (others[within] @ a).max() <= best
    assert (others[within] @ a).max() > 0.9 * best


@pytest.mark.proves("faal")
def test_faal_weights_without_room_or_without_a_difference_are_equal():
    for a, radius in (([0.3, -0.2, 0.1], 0.0), ([0.7, 0.7, 0.7], 0.5), ([5.0], 0.5)):
        found = faal.worst_distribution(torch.tensor(a), radius)
        assert found.tolist() == pytest.approx([1 / len(a)] * len(a))


@pytest.mark.proves("faal")
def test_faal_without_room_is_its_host_or_a_class_balanced_loss():
    clean, z, y = drawn(6, 4), drawn(6, 4, seed=1), torch.tensor([0, 0, 0, 1, 1, 3])
    outputs = forwards(clean, z)
    for host, beta in (("at", None), ("trades", 6.0)):
        plain = build(host, [9, 5, 3, 1], **({"beta": beta} if beta else {})).loss(outputs, y, at())
        official = build("faal", [9, 5, 3, 1], host=host, form="batch_sum", radius=0.0).loss(outputs, y, at())
        assert official.item() == pytest.approx(plain.item())
    each = F.cross_entropy(z, y, reduction="none")
    balanced = (each[:3].mean() + each[3:5].mean() + each[5]) / 3
    ours = build("faal", [9, 5, 3, 1], radius=0.0).loss(outputs, y, at())
    assert ours.item() == pytest.approx(balanced.item())


@pytest.mark.proves("faal")
def test_faal_on_mart_has_marts_terms():
    clean, z, y = drawn(6, 4), drawn(6, 4, seed=1), torch.tensor([0, 0, 0, 1, 1, 3])
    outputs, options = forwards(clean, z), {"host": "mart", "form": "batch_sum", "radius": 0.0, "beta": 5.0}
    plain = build("mart", [9, 5, 3, 1], beta=5.0).loss(outputs, y, at())
    assert build("faal", [9, 5, 3, 1], **options).loss(outputs, y, at()).item() == pytest.approx(plain.item())


@pytest.mark.proves("faal")
def test_faal_normalised_gives_absent_classes_nothing_and_one_class_everything():
    z, y = drawn(6, 4), torch.tensor([0, 0, 0, 1, 1, 3])
    weights = faal.class_normalised_weights(z, y, 0.5)
    assert weights[2] == 0 and weights.sum().item() == pytest.approx(1)
    order = weights[[0, 1, 3]].argsort()
    assert torch.equal(order, faal.class_margins(z, y)[[0, 1, 3]].argsort()), "the worse a class, the larger its weight"
    alone = faal.class_normalised_weights(z[:3], y[:3], 0.5)
    assert alone.tolist() == [1, 0, 0, 0]


# FRL


@pytest.mark.proves("frl")
def test_frl_weights_by_hand():
    multipliers = torch.zeros(10, dtype=DOUBLE)
    assert frl.class_weights(multipliers).tolist() == pytest.approx([0.1] * 10)
    multipliers[0] = 0.1
    assert frl.class_weights(multipliers).tolist() == pytest.approx([0.19] + [0.09] * 9)


@pytest.mark.proves("frl")
def test_frl_multipliers_stay_within_their_limit_and_weights_positive():
    for seed in range(20):
        found = frl.capped(drawn(10, seed=seed), 0.5)
        assert found.min() >= 0 and found.sum() <= 0.5 + 1e-12
        weights = frl.class_weights(found)
        assert weights.sum().item() == pytest.approx(1) and weights.min() >= 0.5 / 10 - 1e-12
    small = torch.tensor([0.1, -0.3, 0.2], dtype=DOUBLE)
    assert frl.capped(small, 0.5).tolist() == pytest.approx([0.1, 0.0, 0.2])


@pytest.mark.proves("frl")
def test_frl_counts_errors_of_classes_and_raises_what_is_unfair():
    """Classes of 6, 2 and 2 images: no clean error, all clean errors, errors under attack only."""
    y = torch.tensor([0] * 6 + [1] * 2 + [2] * 2)
    right = 9 * F.one_hot(y, 3).double()
    clean, z = right.clone(), right.clone()
    clean[6:8] = z[6:8] = 9 * F.one_hot(torch.tensor([0, 0]), 3).double()
    z[8:] = 9 * F.one_hot(torch.tensor([0, 0]), 3).double()
    for total, means in (("class", (1 / 3, 1 / 3)), ("images", (0.2, 0.2))):
        method = build("frl", [6, 2, 2], epochs=40, total=total)
        memory = method.memory["multipliers"]
        memory.on_step_end(forwards(clean[:5], z[:5]), y[:5], None)
        memory.on_step_end(forwards(clean[5:], z[5:]), y[5:], None)
        errors = memory.errors()
        assert (errors.clean.tolist(), errors.boundary.tolist()) == ([0, 1, 0], [0, 0, 1])
        assert (errors.mean_clean.item(), errors.mean_boundary.item()) == pytest.approx(means)
        memory.on_epoch_end(1, None)
        excess = 1 - means[0] - 0.07
        assert memory.clean.tolist() == pytest.approx([0, 0.05 * excess, 0])
        assert memory.boundary.tolist() == pytest.approx([0, 0, 2 * 0.05 * excess])
        below = 0.2 * (-means[1] - 0.07)
        assert memory.radius.tolist() == pytest.approx([below, below, 0.2 * excess])
        assert memory.seen.sum() == 0, "each epoch counts anew"


@pytest.mark.proves("frl")
def test_frl_radii_follow_their_multipliers_only_where_asked():
    y, given = torch.tensor([0, 1, 2, 2]), AttackBudget(0.1, 0.025, 0.1)
    psi = torch.tensor([-1.0, math.log(2) / 2, 9.0], dtype=DOUBLE)
    for kind, step, expected in (("rw", "shared", None), ("rwrm", "shared", 0.025), ("rwrm", "largest", 0.3 / 4)):
        method = build("frl", [6, 2, 2], kind=kind, step=step)
        method.memory["multipliers"].radius = psi
        found = method.attack_budget(given, y, at())
        if expected is None:
            assert found == given
        else:
            assert found.epsilon.tolist() == pytest.approx([0.098, 0.2, 0.3, 0.3])
            assert (float(found.step_size), found.start) == (pytest.approx(expected), 0.1)


@pytest.mark.proves("frl")
def test_frl_before_its_first_move_is_trades():
    clean, z, y = drawn(6, 3), drawn(6, 3, seed=1), torch.tensor([0, 0, 0, 1, 1, 2])
    outputs = forwards(clean, z)
    plain = build("trades", [9, 3, 1], beta=1.5).loss(outputs, y, at())
    assert build("frl", [9, 3, 1]).loss(outputs, y, at()).item() == pytest.approx(plain.item())
    each = F.cross_entropy(clean, y, reduction="none") / torch.tensor([9.0, 9, 9, 3, 3, 1])
    prior = build("frl", [9, 3, 1], beta=0.0, base_weights="counts").loss(outputs, y, at())
    assert prior.item() == pytest.approx(each.sum().item() / (3 / 9 + 2 / 3 + 1))


# MCAT, as released


@pytest.mark.proves("mcat")
def test_mcat_geometry_by_hand():
    assert mcat.geometry(torch.eye(2, dtype=DOUBLE)).item() == pytest.approx(0.5)
    for classes in (3, 5):
        eye = torch.eye(classes, dtype=DOUBLE)
        simplex = (eye - 1 / classes) * torch.arange(1, classes + 1)[:, None]  # lengths do not matter
        assert mcat.geometry(simplex).item() == pytest.approx(0, abs=1e-15)
        rows = drawn(classes, 4)
        total = sum(
            (float(a @ b / a.norm() / b.norm()) - (1 if i == j else -1 / (classes - 1))) ** 2
            for i, a in enumerate(rows)
            for j, b in enumerate(rows)
        )
        assert mcat.geometry(rows).item() == pytest.approx(total / classes**2)


@pytest.mark.proves("mcat")
def test_mcat_adds_the_geometry_of_its_own_head():
    method = build("mcat", [9, 3, 1], beta_g=0.7)
    head = method.head(4, 3).double()
    h, y = drawn(6, 4), torch.tensor([0, 0, 0, 1, 1, 2])
    z = head(h)
    loss = method.loss(forwards(adversarial=z), y, at())
    expected = F.cross_entropy(z, y) + 0.7 * mcat.geometry(head.weight)
    assert loss.item() == pytest.approx(expected.item())
    found = torch.autograd.grad(loss, head.weight, retain_graph=True)[0]
    assert torch.allclose(found, torch.autograd.grad(expected, head.weight)[0])


# Tailguard


LABELS = np.repeat([0, 1, 2], [8, 4, 2])


def draws(method, epochs, generator=None):
    generator = generator or np.random.default_rng(0)
    return [method.sampler(LABELS, len(LABELS), epoch, generator).tolist() for epoch in epochs]


@pytest.mark.proves("tailguard")
@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({"begin": 0}, "resample"),
        ({"begin": 1}, "at"),
        ({"begin": 1, "tau": 1}, "at-bsl"),
    ],
)
def test_tailguard_at_the_ends_of_its_options_is_a_known_defense(options, known):
    """So the boards' ablation needs no further runs for these."""
    ours, theirs = build("tailguard", [8, 4, 2], **options), build(known, [8, 4, 2])
    assert draws(ours, range(1, 11)) == draws(theirs, range(1, 11))
    z, y = drawn(6, 3), torch.tensor([0, 0, 0, 1, 1, 2])
    for epoch in (1, 5, 6, 10):
        found, expected = (one.loss(forwards(adversarial=z), y, at(epoch)) for one in (ours, theirs))
        assert torch.equal(found, expected)


@pytest.mark.proves("tailguard")
@pytest.mark.parametrize("stop", [2, 7, 9])
def test_tailguard_saved_before_and_after_its_balanced_draws_begin_goes_on_alike(stop):
    generator, whole = np.random.default_rng(0), build("tailguard", [8, 4, 2])
    draws(whole, range(1, stop + 1), generator)
    again = build("tailguard", [8, 4, 2])
    again.memory["sampler"].load_state_dict(whole.memory["sampler"].state_dict())
    copy = np.random.default_rng()
    copy.bit_generator.state = generator.bit_generator.state
    assert draws(again, range(stop + 1, 11), copy) == draws(whole, range(stop + 1, 11), generator)
