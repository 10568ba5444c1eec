"""Measurements of a model beside the attacks: what their verdict rests on. See ``reliability.py`` for what is flagged.

Each takes (what is attacked, images x [B, ...] in [0, 1], labels y [B], batch size).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltrobust_bench.api import cross_entropy
from ltrobust_bench.attacks.pgd import pgd
from ltrobust_bench.attacks.terms import Target
from ltrobust_bench.randomness import seeded
from ltrobust_bench.scores.reliability import NOISE

RADII = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the evaluation radius."""
SMALL_BATCH = 7
STEPS_AT_HALF = 50


def first_places(labels: np.ndarray, each: int) -> np.ndarray:
    """Which images are among the first ``each`` of their class, bool, shape of ``labels`` (sorted)."""
    starts = np.searchsorted(labels, labels)
    return np.arange(len(labels)) - starts < each


def _parts(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, start + size)


def logits_of(model: nn.Module, x: Tensor, size: int) -> Tensor:
    """Logits of ``x``, batch by batch, [B, C]."""
    with torch.no_grad():
        return torch.cat([model(x[part]) for part in _parts(len(x), size)])


def randomness(on: Target, x: Tensor, y: Tensor, size: int) -> float:
    """Largest difference between the logits of two forwards of the same batches, as a share of the logits' range."""
    first, second = logits_of(on.model, x, size), logits_of(on.model, x, size)
    spread = (first.max() - first.min()).clamp_min(1e-12)
    return float((first - second).abs().max() / spread)


def probabilities(on: Target, x: Tensor, y: Tensor, size: int) -> bool:
    """Whether all outputs lie in [0, 1] and every row adds up to 1."""
    z = logits_of(on.model, x, size)
    return bool((z >= 0).all() and (z <= 1).all() and ((z.sum(dim=1) - 1).abs() < 1e-4).all())


def confidence(on: Target, x: Tensor, y: Tensor, size: int) -> float:
    """Median over the images of the largest softmax probability; 1/C for logits that are all but equal."""
    return float(logits_of(on.model, x, size).softmax(dim=1).amax(dim=1).median())


def zero_gradients(on: Target, x: Tensor, y: Tensor, size: int) -> float:
    """Share of the correctly classified images whose cross-entropy gradient is exactly 0 in every pixel."""
    none, right = 0, 0
    for part in _parts(len(x), size):
        images = x[part].clone().requires_grad_(True)
        with torch.enable_grad():
            logits = on.model(images)
            loss = cross_entropy(logits, y[part]).sum()
        gradient = torch.autograd.grad(loss, images, allow_unused=True)[0] if loss.requires_grad else None
        flat = torch.zeros_like(images) if gradient is None else gradient
        correct = logits.argmax(dim=1) == y[part]
        none += int(((flat == 0).flatten(1).all(dim=1) & correct).sum())
        right += int(correct.sum())
    return none / max(1, right)


def _accuracy(
    on: Target, x: Tensor, y: Tensor, size: int, stream: str, *, radius: float, steps: int, step_size: float
) -> float:
    """Accuracy under PGD at a radius."""
    attack = replace(on, epsilon=radius).stage(stream, pgd, step_size=step_size, steps=steps, start="uniform")
    right = 0
    for position, part in enumerate(_parts(len(x), size)):
        adversarial = attack(x[part], y[part], position)
        with torch.no_grad():
            right += int((on.model(adversarial).argmax(dim=1) == y[part]).sum())
    return right / len(x)


def accuracy_at_half(on: Target, x: Tensor, y: Tensor, size: int) -> float:
    """Accuracy under PGD at the radius where any image can be turned into any other half-way, grey included; 0.5 in
    Linf."""
    radius = on.ball.grey(x[0].numel())
    step_size, stream = radius / 8, "reliability/half"
    return _accuracy(on, x, y, size, stream, radius=radius, steps=STEPS_AT_HALF, step_size=step_size)


def accuracy_by_radius(on: Target, x: Tensor, y: Tensor, size: int) -> dict[str, float]:
    """Accuracy under PGD-20 at multiples of the evaluation radius."""
    radii = {f"{factor:g}": factor * on.epsilon for factor in RADII}
    stream = "reliability/radius"
    return {k: _accuracy(on, x, y, size, stream, radius=r, steps=20, step_size=r / 4) for k, r in radii.items()}


def batch_dependence(on: Target, x: Tensor, y: Tensor, size: int) -> float:
    """Share of the images that get other logits in small batches of images in another order: a difference of more than
    ``NOISE`` of the logits' range."""
    order = torch.randperm(len(x), generator=seeded(on.seed, "reliability/batch")).to(x.device)
    usual = logits_of(on.model, x, size)
    mixed = torch.empty_like(usual)
    mixed[order] = logits_of(on.model, x[order], SMALL_BATCH)
    spread = (usual.max() - usual.min()).clamp_min(1e-12)
    return float(((usual - mixed).abs().amax(dim=1) > NOISE * spread).float().mean())


_ALL = (
    randomness,
    probabilities,
    confidence,
    zero_gradients,
    accuracy_at_half,
    accuracy_by_radius,
    batch_dependence,
)
MEASUREMENTS: dict[str, Callable[..., Any]] = {function.__name__: function for function in _ALL}
"""By the name of the field of the record that each fills."""
