"""Attacks where the answer is known, and their invariances."""

from __future__ import annotations

import pytest
import torch
from linear import Linear
from torch import nn

from ltrobust_bench.api import cross_entropy
from ltrobust_bench.attacks.autoattack import AutoAttack, autoattack
from ltrobust_bench.attacks.cw import cw
from ltrobust_bench.attacks.engine import ascend, crafting_mode
from ltrobust_bench.attacks.fgsm import fgsm
from ltrobust_bench.attacks.mim import mim
from ltrobust_bench.attacks.pgd import pgd
from ltrobust_bench.attacks.scaled_pgd import scaled_pgd
from ltrobust_bench.errors import UsageError

EPSILON = 0.1


def images(n=6, seed=1, low=0.2, high=0.8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = low + (high - low) * torch.rand(n, 3, 4, 4, generator=generator, dtype=dtype)
    return x, torch.randint(0, 2, (n,), generator=generator)


ATTACKS = {
    "fgsm": lambda m, x, y, **k: fgsm(m, x, y, epsilon=EPSILON, **k),
    "pgd": lambda m, x, y, **k: pgd(m, x, y, epsilon=EPSILON, step_size=EPSILON / 4, steps=10, **k),
    "mim": lambda m, x, y, **k: mim(m, x, y, epsilon=EPSILON, step_size=EPSILON / 4, steps=10, **k),
    "cw": lambda m, x, y, **k: cw(m, x, y, epsilon=EPSILON, step_size=EPSILON / 4, steps=10, kappa=50.0, **k),
    "scaled-pgd": lambda m, x, y, **k: scaled_pgd(
        m, x, y, epsilon=EPSILON, step_size=EPSILON / 4, steps=10, alphas=[0.1, 0.5], **k
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_linear_two_class_optimum_is_reached(name):
    """For two classes every loss is monotone in z_y - z_other: the optimum is x - eps sign(w_y - w_other)."""
    model, (x, y) = Linear(), images()
    direction = (model.weight[y] - model.weight[1 - y]).view_as(x).sign()
    assert torch.allclose(ATTACKS[name](model, x, y), x - EPSILON * direction, atol=1e-12)


@pytest.mark.parametrize("name", ATTACKS)
def test_stays_in_ball_and_box(name):
    x, y = images(n=40, low=0.0, high=1.0, dtype=torch.float32)
    adversarial = ATTACKS[name](Linear(4).float(), x, y)
    assert (adversarial.double() - x.double()).abs().max() <= EPSILON + 2**-24
    assert adversarial.min() >= 0 and adversarial.max() <= 1


@pytest.mark.parametrize("name", ATTACKS)
def test_images_do_not_interact(name):
    """In eval mode an image's adversarial is the same alone and in a batch."""
    x, y = images()
    model = nn.Sequential(nn.BatchNorm2d(3), Linear(3)).double().train()
    start = {"start": "none"} if name != "fgsm" else {}
    together = ATTACKS[name](model, x, y, **start)
    alone = torch.cat([ATTACKS[name](model, x[i : i + 1], y[i : i + 1], **start) for i in range(len(x))])
    assert torch.equal(together, alone)
    assert model.training and model[0].num_batches_tracked == 0


def net(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
    return model.double()


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_loss_rises_with_epsilon_and_steps(steps):
    model, (x, y) = net(), images(n=32)

    def loss(epsilon, steps):
        found = pgd(model, x, y, epsilon=epsilon, step_size=epsilon / 4, steps=steps, start="none")
        return cross_entropy(model(found), y).mean()

    assert loss(0.0, steps) <= loss(0.02, steps) <= loss(0.05, steps)
    assert loss(0.05, steps) <= loss(0.05, steps + 5) + 1e-6


def test_epsilon_zero_changes_nothing():
    x, y = images()
    assert torch.equal(pgd(net(), x, y, epsilon=0.0, step_size=0.1, steps=3), x)


def test_positive_factor_per_image_is_inert_in_eval_mode():
    """methods.md 0.3: class weights on the attack loss cannot change its result (REAT's RBL in eval mode)."""
    model, (x, y) = net().eval(), images(n=16)
    settings = {"epsilon": EPSILON, "step_size": EPSILON / 4, "steps": 10, "start": "none"}
    weights = torch.tensor([0.01, 7.0], dtype=torch.float64)
    plain = ascend(model, x, y, objective=cross_entropy, **settings)
    weighted = ascend(model, x, y, objective=lambda z, t: weights[t] * cross_entropy(z, t), **settings)
    assert torch.equal(plain, weighted)
    shifted = ascend(model, x, y, objective=lambda z, t: cross_entropy(z + torch.arange(5.0) * 3, t), **settings)
    assert not torch.equal(plain, shifted)


def test_per_image_budget():
    x, y = images(n=4)
    epsilon = torch.tensor([0.0, 0.01, 0.05, 0.1], dtype=torch.float64)
    found = pgd(net(), x, y, epsilon=epsilon, step_size=epsilon / 4, steps=20)
    assert torch.allclose((found - x).abs().amax(dim=(1, 2, 3)), epsilon, atol=1e-9)


def test_mim_survives_a_zero_gradient():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 2, dtype=x.dtype) + 0 * x.sum()

    x, y = images()
    assert torch.equal(mim(Constant(), x, y, epsilon=0.1, step_size=0.1, steps=3, start="none"), x)


def test_cw_keeps_a_success():
    """kappa = 0: once misclassified, the gradient is zero and the iterate stays."""
    model, (x, y) = Linear(), images()
    y = 1 - model(x).argmax(1)  # misclassified from the start
    assert torch.equal(cw(model, x, y, epsilon=0.1, step_size=0.05, steps=5, kappa=0.0, start="none"), x)


def test_scaled_pgd_undoes_saturated_logits():
    """A model whose logits are multiplied by 1000 gives float32 cross-entropy no gradient; some scale has one."""
    base, (x, y) = net().float(), images(n=64, dtype=torch.float32)
    y = base(x).argmax(1)

    def scaled(z):
        return 1000 * base(z)

    settings = {"epsilon": 0.3, "step_size": 0.05, "steps": 20, "start": "none"}

    class Scaled(nn.Module):
        def forward(self, z):
            return scaled(z)

    def robust(found):
        return (base(found).argmax(1) == y).float().mean()

    plain = robust(pgd(Scaled(), x, y, **settings))
    worst = robust(scaled_pgd(Scaled(), x, y, alphas=[0.001, 1.0], **settings))
    honest = robust(pgd(base, x, y, **settings))
    assert worst <= honest < plain


def test_restarts_keep_the_first_success():
    model, (x, y) = net(), images(n=32)
    one, many = (
        pgd(
            model, x, y, epsilon=0.05, step_size=0.05, steps=1, restarts=r,
            generator=torch.Generator().manual_seed(0),
        )
        for r in (1, 8)
    )  # fmt: skip
    fooled = [(model(a).argmax(1) != y).sum() for a in (one, many)]
    assert fooled[1] >= fooled[0]


@pytest.mark.parametrize("mode", ["eval", "batch", "train"])
def test_crafting_modes_treat_batch_norm_as_they_say(mode):
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(norm, nn.Flatten()).train()
    x = torch.rand(4, 3, 4, 4) * 5
    before = norm.running_mean.clone(), norm.num_batches_tracked.clone()
    with crafting_mode(model, mode):
        inside = model(x)
    uses_batch = torch.allclose(inside.mean(), torch.tensor(0.0), atol=1e-5)
    assert uses_batch == (mode != "eval")
    moved = not torch.equal(norm.running_mean, before[0])
    assert moved == (mode == "train")
    assert norm.num_batches_tracked == before[1] + (mode == "train")
    assert model.training and norm.track_running_stats


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, "float images"),
        ({"x": torch.zeros(2, 48)}, "float images"),
        ({"x": torch.full((2, 3, 4, 4), 255.0)}, "divide by 255"),
        ({"x": torch.full((2, 3, 4, 4), float("nan"))}, "must lie in"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, "int64 labels of shape"),
        ({"y": torch.zeros(2)}, "int64 labels"),
        ({"epsilon": -0.1}, "at least 0"),
    ],
)
def test_wrong_input_is_refused(change, says):
    arguments = {"x": torch.zeros(2, 3, 4, 4), "y": torch.zeros(2, dtype=torch.int64), "epsilon": 0.1, **change}
    with pytest.raises(UsageError, match=says):
        pgd(net().float(), **arguments, step_size=0.1, steps=1)


@pytest.mark.parametrize(
    ("classes", "name"), [(2, "aa-small-c"), (3, "aa-small-c"), (4, "autoattack"), (7, "autoattack")]
)
def test_autoattack_with_few_classes(classes, name):
    """C - 1 targets from 4 classes on; below, no targeted DLR loss, and another name."""
    assert AutoAttack.standard().named(classes) == name
    model, (x, y) = Linear(classes).float(), images(n=12, dtype=torch.float32)
    y = model(x).argmax(1)
    # A linear model: an image is robust exactly if every margin exceeds eps |w_y - w_k|_1 (away from the box).
    weight, others = model.weight.detach(), torch.arange(classes) != y[:, None]
    margins = model(x).detach().gather(1, y[:, None]) - model(x).detach()
    lengths = (weight[y][:, None] - weight[None]).abs().sum(2)
    critical = torch.where(others, margins / lengths.clamp_min(1e-9), torch.inf).amin(1)
    epsilon = critical.median().item() + 1e-4
    assert epsilon < 0.2
    before = torch.get_rng_state()
    found = autoattack(model, x, y, epsilon=epsilon, steps=10, queries=20)
    assert torch.equal(before, torch.get_rng_state())
    assert (found - x).abs().max() <= epsilon + 2**-24
    robust = model(found).argmax(1) == y
    assert torch.equal(robust, critical > epsilon)
    assert 0 < robust.sum() < len(x)
