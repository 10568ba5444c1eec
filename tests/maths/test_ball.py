"""Threat models: where the answer is known, and what must hold of any ball."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_attacks import Linear, images, net

from ltrobust_bench.api import cross_entropy
from ltrobust_bench.attacks.autoattack import autoattack
from ltrobust_bench.attacks.ball import BALLS
from ltrobust_bench.attacks.cw import cw
from ltrobust_bench.attacks.engine import start_point
from ltrobust_bench.attacks.fgsm import fgsm
from ltrobust_bench.attacks.mim import mim
from ltrobust_bench.attacks.pgd import pgd
from ltrobust_bench.attacks.scaled_pgd import scaled_pgd
from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.evaluation.evaluator import check_ball

L2 = BALLS["L2"]
EPSILON = 0.2
SETTINGS = {"ball": L2, "epsilon": EPSILON, "step_size": EPSILON / 4, "steps": 10}
ATTACKS = {
    "fgsm": lambda m, x, y, **k: fgsm(m, x, y, ball=L2, epsilon=EPSILON, **k),
    "pgd": lambda m, x, y, **k: pgd(m, x, y, **{**SETTINGS, **k}),
    "mim": lambda m, x, y, **k: mim(m, x, y, **{**SETTINGS, **k}),
    "cw": lambda m, x, y, **k: cw(m, x, y, kappa=50.0, **{**SETTINGS, **k}),
    "scaled-pgd": lambda m, x, y, **k: scaled_pgd(m, x, y, alphas=[0.1, 0.5], **{**SETTINGS, **k}),
}
both = pytest.mark.parametrize("ball", BALLS.values(), ids=list(BALLS))


def noise(x, seed, scale=1.0):
    return scale * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


@pytest.mark.parametrize("name", ATTACKS)
def test_linear_two_class_optimum_is_reached(name):
    """The optimum in the ball is x - eps w / |w|, w the difference of the two classes' weights."""
    model, (x, y) = Linear(), images()
    w = (model.weight[y] - model.weight[1 - y]).view_as(x).detach()
    optimum = x - EPSILON * w / w.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    found = ATTACKS[name](model, x, y, **({} if name == "fgsm" else {"steps": 40}))
    assert torch.allclose(found, optimum, atol=1e-3 * EPSILON)


@both
def test_the_steepest_step_has_length_one_and_gains_most(ball):
    g = noise(images()[0], 0)
    step, origin = ball.steepest(g), torch.zeros_like(g)
    assert torch.allclose(ball.distance(step, origin), torch.ones(len(g), dtype=torch.float64))
    for seed in range(1, 50):
        other = ball.on_sphere(g, 1.0, torch.Generator().manual_seed(seed))
        assert torch.allclose(ball.distance(other, origin), torch.ones(len(g), dtype=torch.float64))
        assert ((step * g).flatten(1).sum(1) >= (other * g).flatten(1).sum(1)).all()


@both
def test_zero_gradients_stay_zero_and_tiny_ones_count(ball):
    g = noise(images(dtype=torch.float32)[0], 0)
    g[0] = 0
    assert torch.equal(ball.steepest(g)[0], torch.zeros_like(g[0]))
    assert torch.allclose(ball.steepest(g * 1e-30), ball.steepest(g), atol=1e-6)
    assert torch.equal(ball.steepest(g * torch.nan), torch.zeros_like(g))


@both
@pytest.mark.parametrize("epsilon", [0.1, torch.linspace(0, 0.3, 6)])
def test_projection_is_idempotent_and_stays_in_ball_and_box(ball, epsilon):
    x = images(low=0.0, high=1.0)[0]
    once = ball.project(x + noise(x, 1), x, epsilon)
    assert torch.allclose(ball.project(once, x, epsilon), once, atol=1e-12)
    assert (ball.distance(once, x) <= torch.as_tensor(epsilon) + 1e-6).all()
    assert once.min() >= 0 and once.max() <= 1
    inside = ball.project(x + ball.inside(x, epsilon, None), x, epsilon)
    assert torch.allclose(ball.project(inside, x, epsilon), inside, atol=1e-12)


@both
def test_projection_is_the_nearest_point_of_the_ball(ball):
    """In the Euclidean distance, among random points of the ball; the box does not bind here."""
    x = images(low=0.45, high=0.55)[0]
    moved, generator = x + noise(x, 2, 0.1), torch.Generator().manual_seed(0)
    nearest = (ball.project(moved, x, 0.2) - moved).flatten(1).norm(dim=1)
    for _ in range(300):
        for draw in (ball.inside, ball.on_sphere):
            point = x + draw(x, 0.2, generator)
            assert (ball.distance(point, x) <= 0.2 + 1e-12).all()
            assert (nearest <= (point - moved).flatten(1).norm(dim=1) + 1e-12).all()


def test_random_starts_of_l2():
    """Uniform direction, length uniform in [0, eps]; one-sided starts darken no pixel."""
    x, generator = torch.full((4000, 1, 4, 4), 0.5), torch.Generator().manual_seed(0)
    change = start_point(x, 0.3, "uniform", False, generator, L2) - x
    lengths = np.sort(change.flatten(1).norm(dim=1).numpy()) / 0.3
    assert np.abs(lengths - np.linspace(0, 1, 4000)).max() < 0.03
    assert change.flatten(1).mean(0).abs().max() < 0.005
    raised = start_point(x, 0.3, "one_sided", False, generator, L2) - x
    assert raised.min() >= 0 and (L2.distance(raised + x, x) <= 0.3 + 1e-6).all()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (4, 3, 64, 64)])
def test_attacks_stay_in_ball_and_box(name, shape):
    class Any(torch.nn.Module):
        def forward(self, z):
            return (z.flatten(1)[:, :48] - 0.4) @ Linear(4).weight.float().T

    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    adversarial = ATTACKS[name](Any(), x, torch.arange(len(x)) % 4)
    check_ball(name, x, adversarial, EPSILON, L2)
    assert (L2.distance(adversarial, x) > 0.5 * EPSILON).any()


@pytest.mark.parametrize("name", ATTACKS)
def test_images_do_not_interact(name):
    x, y = images()
    start = {} if name == "fgsm" else {"start": "none"}
    together = ATTACKS[name](net(), x, y, **start)
    alone = torch.cat([ATTACKS[name](net(), x[i : i + 1], y[i : i + 1], **start) for i in range(len(x))])
    assert torch.allclose(together, alone, atol=1e-12)


def test_loss_rises_with_epsilon():
    model, (x, y) = net(), images(n=32)

    def loss(epsilon):
        found = pgd(model, x, y, ball=L2, epsilon=epsilon, step_size=epsilon / 4, steps=10, start="none")
        return cross_entropy(model(found), y)

    small, middle, large = map(loss, (0.0, 0.05, 0.2))
    assert (small <= middle).all() and (middle <= large).all()


def test_a_radius_per_image():
    x, y = images(n=4)
    epsilon = torch.tensor([0.0, 0.01, 0.05, 0.1], dtype=torch.float64)
    found = pgd(net(), x, y, ball=L2, epsilon=epsilon, step_size=epsilon / 4, steps=20)
    assert torch.allclose(L2.distance(found, x), epsilon, atol=1e-9)


def test_a_projection_of_the_other_norm_is_caught(monkeypatch):
    """The cube's corners are far outside the sphere; the ball's check says so, and the distance is in its words."""
    monkeypatch.setattr(type(L2), "projection", type(BALLS["Linf"]).projection)
    x, y = images(dtype=torch.float32)
    found = pgd(Linear().float(), x, y, ball=L2, epsilon=EPSILON, step_size=1.0, steps=10)
    with pytest.raises(LTBenchError, match=r"left its ball: L2 distance .* for epsilon 0\.2"):
        check_ball("pgd", x, found, EPSILON, L2)


@both
@pytest.mark.parametrize("moved", [torch.nan, 1.2, -0.1, 0.75])
def test_what_left_is_noticed(ball, moved):
    x = torch.full((2, 1, 2, 2), 0.5)
    bad = x.clone()
    bad[1, 0, 0, 0] = moved
    assert ball.left(bad, x, 0.2).tolist() == [False, True]


@both
def test_the_tolerance_covers_rounding_and_no_more(ball):
    """Projections in float32 of images as large as any here stay within it; an excess of a thousandth does not."""
    x = 0.2 + 0.6 * torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    moved = x + noise(x, 1)
    epsilon = 0.01 * ball.grey(x[0].numel())
    assert not ball.left(ball.project(moved, x, epsilon), x, epsilon).any()
    assert ball.left(ball.project(moved, x, 1.001 * epsilon), x, epsilon).all()


@both
def test_any_image_can_become_grey_at_the_grey_radius(ball):
    x = (torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    grey, radius = torch.full_like(x, 0.5), ball.grey(192)
    assert not ball.left(grey, x, radius).any() and ball.left(grey, x, 0.99 * radius).all()


def test_autoattack_in_l2_finds_what_a_linear_model_loses():
    """An image is robust exactly if every margin exceeds eps |w_y - w_k|_2, away from the box."""
    model, generator = Linear(5).float(), torch.Generator().manual_seed(1)
    model.weight.data = torch.randn(5, 64, generator=generator)
    x = 0.2 + 0.6 * torch.rand(12, 1, 8, 8, generator=generator)  # the official Square needs five rows in L2
    y, weight = model(x).argmax(1), model.weight.detach()
    margins = model(x).detach().gather(1, y[:, None]) - model(x).detach()
    lengths = (weight[y][:, None] - weight[None]).norm(dim=2)
    critical = torch.where(torch.arange(5) != y[:, None], margins / lengths.clamp_min(1e-9), torch.inf).amin(1)
    epsilon = critical.median().item() + 1e-4
    found = autoattack(model, x, y, epsilon=epsilon, ball=L2, steps=20, queries=20)
    check_ball("autoattack", x, found, epsilon, L2)
    robust = model(found).argmax(1) == y
    assert torch.equal(robust, critical > epsilon) and 0 < robust.sum() < len(x)
