"""The one projected-gradient engine. Training crafts with it, and every simple attack is a few lines on top.

For an iterate x^t: x^{t+1} = P(x^t + eta * s(g)) with g the gradient of the objective, s(g) its direction of steepest
ascent and P the projection into the ball and [0, 1], both of the threat model (:mod:`ltrobust_bench.attacks.ball`). The
last iterate is returned, detached. Only the gradient with respect to the image is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust_bench.attacks.ball import LINF, Ball, per_image
from ltrobust_bench.errors import UsageError
from ltrobust_bench.randomness import normal
from ltrobust_bench.terms import BNMode, Start

PerImage = Callable[[Tensor, Tensor], Tensor]
"""(logits [B, C], y [B]) -> one value per image [B]."""


@contextmanager
def crafting_mode(model: nn.Module, mode: BNMode) -> Iterator[None]:
    """Put ``model`` in the mode in which adversarial examples are crafted, and back afterwards.

    ``eval``: eval mode. ``batch``: train mode, batch norm uses the batch's statistics and leaves the running ones
    alone. ``train``: train mode, running statistics move with every forward.
    """
    modules = list(model.modules())
    training = [m.training for m in modules]
    tracking = [(m, m.track_running_stats) for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    model.train(mode != "eval")
    if mode == "batch":
        for norm, _ in tracking:
            norm.track_running_stats = False
    try:
        yield
    finally:
        for module, was in zip(modules, training, strict=True):
            module.training = was
        for norm, tracked in tracking:
            norm.track_running_stats = tracked


def start_point(
    x: Tensor,
    epsilon: float | Tensor,
    start: Start | Tensor,
    clamp: bool,
    generator: torch.Generator | None,
    ball: Ball = LINF,
) -> Tensor:
    """The first iterate.

    Args:
        x: images in [0, 1].
        epsilon: radius, one value or one per image [B].
        start: ``none`` x; ``uniform`` a random point of the ball; ``one_sided`` one with no pixel below x's;
            ``gauss`` x + 0.001 N(0, 1); or the iterate itself.
        clamp: clamp the start to [0, 1] (the literature mostly does not).
        generator: of the noise; on the processor it draws the same for any device of ``x``.
        ball: the threat model.
    """
    if isinstance(start, Tensor):
        point = start.clone()
    elif start == "none":
        point = x.clone()
    elif start == "gauss":
        point = normal(x.shape, x, generator).mul_(0.001).add_(x)
    else:
        draw = ball.inside if start == "uniform" else ball.one_sided
        point = draw(x, epsilon, generator).add_(x)
    return point.clamp_(0, 1) if clamp else point


def ascend(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    objective: PerImage,
    epsilon: float | Tensor,
    step_size: float | Tensor,
    steps: int,
    start: Start | Tensor = "uniform",
    clamp_start: bool = False,
    decay: float | None = None,
    generator: torch.Generator | None = None,
    ball: Ball = LINF,
) -> Tensor:
    """Projected gradient ascent on ``objective``; no input check and no device synchronisation.

    Args:
        model: pixels to logits, in the mode it should be attacked in.
        x: images in [0, 1], shape [B, channels, height, width].
        y: labels, shape [B].
        objective: what is climbed, one value per image.
        epsilon, step_size: [0, 1] pixel scale, one value or one per image [B].
        steps: number of gradient steps.
        start, clamp_start, generator: see :func:`start_point`.
        decay: with a number, the momentum iterative method: each gradient is divided by its mean absolute value
            and added to ``decay`` times the sum so far.
        ball: the threat model.

    Returns:
        Adversarial images, detached, shape of ``x``, within epsilon of ``x`` and in [0, 1] if ``steps`` > 0.
    """
    step_size, projected = per_image(step_size, x), ball.projection(x, epsilon)
    adversarial = start_point(x, epsilon, start, clamp_start, generator, ball)
    momentum = torch.zeros_like(x) if decay is not None else None
    for _ in range(steps):
        adversarial.requires_grad_(True)
        with torch.enable_grad():
            value = objective(model(adversarial), y).sum()
        (gradient,) = torch.autograd.grad(value, adversarial)
        if momentum is not None and decay is not None:
            # An image whose gradient is all zero keeps its momentum (the released code divides 0 by 0 there).
            size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
            momentum.mul_(decay).add_(torch.where(size > 0, gradient / size, 0.0))
            gradient = momentum
        with torch.no_grad():
            adversarial = projected(adversarial.detach() + step_size * ball.steepest(gradient))
    return adversarial.detach()


def climb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    objectives: list[PerImage],
    *,
    restarts: int = 1,
    judge: nn.Module | None = None,
    **settings: Any,
) -> Tensor:
    """Ascend each objective ``restarts`` times; an image keeps its first success, else the last iterate.

    Args:
        model, x, y, settings: see :func:`ascend`; the model is attacked in eval mode.
        objectives: one or more.
        judge: whose answer is a success; default: the model's.

    Raises:
        UsageError: for wrong input.
    """
    check_images(x, y, settings["epsilon"])
    found, broken = None, torch.zeros_like(y, dtype=torch.bool)
    attempts = [o for o in objectives for _ in range(restarts)]
    with crafting_mode(model, "eval"), nullcontext() if judge is None else crafting_mode(judge, "eval"):
        for objective in attempts:
            candidate = ascend(model, x, y, objective=objective, **settings)
            found = candidate if found is None else torch.where(broken[:, None, None, None], found, candidate)
            if len(attempts) > 1:
                with torch.no_grad():
                    broken = broken | ((judge or model)(found).argmax(dim=1) != y)
    assert found is not None
    return found


def check_images(x: Tensor, y: Tensor, epsilon: float | Tensor) -> None:
    """Refuse what no attack can work on.

    Raises:
        UsageError: naming the argument, what was seen and what is wanted.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise UsageError(
            f"x must be float images [B, channels, height, width], got {x.dtype} of shape {tuple(x.shape)}."
        )
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise UsageError(f"y must be int64 labels of shape ({len(x)},), got {y.dtype} of shape {tuple(y.shape)}.")
    if len(x) and not (x.min() >= 0 and x.max() <= 1):
        raise UsageError(f"x must lie in [0, 1], got values from {x.min():.3g} to {x.max():.3g}; divide by 255?")
    low = epsilon.min() if isinstance(epsilon, Tensor) else epsilon
    if not low >= 0:
        raise UsageError(f"epsilon must be at least 0 on the [0, 1] pixel scale, got {float(low):g}.")
