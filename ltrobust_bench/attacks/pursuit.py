"""The loop of the thorough attacks: projected ascent that asks the model at every iterate, along any gradient.

Where :mod:`ltrobust_bench.attacks.engine` returns the last iterate, this returns of each image the first one that fools
the model, and goes on with the others only. The gradient is a function, so that it can be the model's own, a mean over
draws, a finite difference, or another model's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor, nn

from ltrobust_bench.attacks.ball import LINF, Ball, per_image
from ltrobust_bench.attacks.engine import check_images, crafting_mode, start_point
from ltrobust_bench.randomness import normal
from ltrobust_bench.terms import Start

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits [B, C], labels [B], places of these images in the whole batch [B]) -> what is climbed, per image [B]."""
Phases = Callable[[int], Objective]
"""Step -> what is climbed in it."""
Value = Callable[[Tensor], Tensor]
"""Logits [B, C] of the images at hand -> what is climbed [B]."""
Gradient = Callable[[nn.Module, Tensor, Value, torch.Generator | None], tuple[Tensor, Tensor | None]]
"""(model, images, value, generator) -> the value's gradient, shape of the images, and the logits of these images if
they became known on the way."""


class Settings(TypedDict, total=False):
    """Keyword arguments that the functions of thorough attacks share.

    They take ``model`` (images in [0, 1] to logits [B, C]), ``x`` [B, channels, height, width] in [0, 1] and ``y``
    (int64 [B]), and return images within ``epsilon`` of ``x`` and in [0, 1], detached, shape of ``x``.

    Keys:
        epsilon: [0, 1] pixel scale, one value or one per image [B]. Required.
        steps: gradient steps of each pass. Required.
        ball: the threat model; default Linf.
        start: see :func:`ltrobust_bench.attacks.engine.start_point`; clamped to [0, 1]. Default ``uniform``.
        restarts: how often all passes are made, on the images still standing; default 1.
        generator: of starts and draws.
        votes: forwards whose mean logits say whether a random model is fooled; exact gradients are then means over as
            many, too. Default 1.
    """

    epsilon: float | Tensor
    steps: int
    ball: Ball
    start: Start
    restarts: int
    generator: torch.Generator | None
    votes: int


def pursue(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    passes: Sequence[Phases],
    *,
    epsilon: float | Tensor,
    steps: int,
    ball: Ball = LINF,
    start: Start = "uniform",
    restarts: int = 1,
    generator: torch.Generator | None = None,
    gradient: Gradient | None = None,
    climbed: nn.Module | None = None,
    votes: int = 1,
) -> Tensor:
    """Of each image the first iterate that fools ``model``, else the last.

    Args:
        model, x, y, epsilon, steps, ball, start, restarts, generator, votes: see :class:`Settings`; the model is
            attacked in eval mode. A step's length is :func:`step_length`.
        passes: what is climbed in each, from a start of its own, as long as the image stands.
        gradient: default: :func:`exact`, the mean of ``votes``.
        climbed: the model whose gradient is taken, where that is not ``model``.

    Raises:
        UsageError: for wrong input.
    """
    check_images(x, y, epsilon)
    # Another model's gradient is as it is: only the attacked one is known to be random.
    slope_of = gradient or (exact if votes == 1 or climbed is not None else mean_gradient(votes))
    asked = climbed is not None or votes > 1
    found, standing = x.clone(), torch.arange(len(x), device=x.device)
    other = nullcontext() if climbed is None else crafting_mode(climbed, "eval")
    with crafting_mode(model, "eval"), other, drawing_from(generator, x):
        for phases in [p for _ in range(restarts) for p in passes]:
            # Drawn for the whole batch: an image's start does not depend on which others stand.
            point = start_point(x, epsilon, start, True, generator, ball)[standing]
            for step in range(steps + 1):
                if not len(standing):
                    return found
                if step == steps:
                    slope, logits = point, None
                else:
                    value = _value(phases(step), y[standing], standing)
                    slope, logits = slope_of(climbed or model, point, value, generator)
                if logits is None or asked:
                    logits = averaged(model, point, votes)
                found[standing] = point
                stands = logits.argmax(dim=1) == y[standing]
                standing, point, slope = standing[stands], point[stands], slope[stands]
                if step < steps:
                    radius = epsilon[standing] if isinstance(epsilon, Tensor) and epsilon.dim() == 1 else epsilon
                    size = per_image(step_length(step, steps) * radius, point)
                    moved = point + size * ball.steepest(torch.nan_to_num(slope))
                    point = ball.project(moved, x[standing], radius)
    return found


def step_length(step: int, steps: int) -> float:
    """1 + cos(pi (i - 1) / K'), in radii, with i counted anew behind each K' = steps / 2: long steps that become short,
    twice (Ma et al., Machine Learning 2024, arXiv 2006.13726; Xie et al., CVPR 2025, released code)."""
    half = steps / 2
    done = step - half if step > half else step
    return 1 + math.cos(math.pi * (done - 1) / half)


def margin(logits: Tensor, y: Tensor, places: Tensor | None = None) -> Tensor:
    """max_{k != y} z_k - z_y per image; unlike CW's it also grows behind the boundary."""
    other = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return other - logits.gather(1, y[:, None]).squeeze(1)


def on_margin(step: int) -> Objective:
    """The margin in every step."""
    return margin


def exact(
    model: nn.Module, point: Tensor, value: Value, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The gradient by backpropagation, 0 where the model has none, and the logits."""
    leaf = point.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(leaf)
        climbed = value(logits).sum()
    slope = torch.autograd.grad(climbed, leaf, allow_unused=True)[0] if climbed.requires_grad else None
    return torch.zeros_like(point) if slope is None else slope, logits.detach()


def mean_gradient(draws: int, noise: float = 0.0) -> Gradient:
    """(1/n) sum_i grad f(x + noise u_i), u_i ~ N(0, 1), each forward with draws of its own if the model is random."""

    def gradient(
        model: nn.Module, point: Tensor, value: Value, generator: torch.Generator | None
    ) -> tuple[Tensor, None]:
        total = torch.zeros_like(point)
        for _ in range(draws):
            moved = point + noise * normal(point.shape, point, generator) if noise else point
            total += exact(model, moved.clamp(0, 1), value)[0]
        return total / draws, None

    return gradient


def averaged(model: nn.Module, point: Tensor, votes: int) -> Tensor:
    """The mean logits of some forwards."""
    with torch.no_grad():
        return torch.stack([model(point) for _ in range(votes)]).mean(dim=0)


def _value(objective: Objective, y: Tensor, places: Tensor) -> Value:
    return partial(_called, objective, y, places)


def _called(objective: Objective, y: Tensor, places: Tensor, logits: Tensor) -> Tensor:
    return objective(logits, y, places)


@contextmanager
def drawing_from(generator: torch.Generator | None, x: Tensor) -> Iterator[None]:
    """Torch's global generators, from which random models draw, are seeded by ``generator`` and put back afterwards: so
    an attack on a random model can be repeated, too."""
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        yield
