"""Simple attacks on top of the engine. All attack in eval mode what the model returns, within Linf epsilon.

Common arguments: ``model`` maps images in [0, 1] to logits [B, C]; ``x`` [B, channels, height, width]; ``y`` int64
[B]; ``epsilon`` and ``step_size`` on the [0, 1] pixel scale, one value or one per image; ``start`` as in
:func:`ltrobust_bench.attacks.engine.start_point`; ``restarts`` independent starts, of which an image keeps the
first that is misclassified; ``generator`` on the device of ``x``. They return adversarial images, detached, and
raise UsageError for wrong input.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Required, TypedDict, Unpack

import torch
from torch import Tensor, nn

from ltrobust_bench.api import cross_entropy
from ltrobust_bench.attacks.engine import PerImage, ascend, check_input, crafting_mode
from ltrobust_bench.terms import Start


def margin(logits: Tensor, y: Tensor, kappa: float = 0.0) -> Tensor:
    """The CW objective -max(z_y - max_{k != y} z_k + kappa, 0) per image, shape [B].

    With kappa = 0 the gradient is zero once an image is misclassified, so the last iterate keeps the success.
    """
    true = logits.gather(1, y[:, None]).squeeze(1)
    other = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return -(true - other + kappa).clamp_min(0)


def _scaled(alpha: float, logits: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(alpha * logits, y)


class Settings(TypedDict, total=False):
    """Arguments that the attacks share; see the top of this module."""

    epsilon: Required[float | Tensor]
    step_size: Required[float | Tensor]
    steps: Required[int]
    start: Start | Tensor
    restarts: int
    generator: torch.Generator | None


def _attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    objectives: list[PerImage],
    *,
    restarts: int = 1,
    decay: float | None = None,
    **settings: Any,
) -> Tensor:
    """Ascend each objective ``restarts`` times; an image keeps its first success, else the last iterate."""
    check_input(x, y, settings["epsilon"])
    found, broken = None, torch.zeros_like(y, dtype=torch.bool)
    attempts = [o for o in objectives for _ in range(restarts)]
    with crafting_mode(model, "eval"):
        for objective in attempts:
            candidate = ascend(model, x, y, objective=objective, decay=decay, **settings)
            found = candidate if found is None else torch.where(broken[:, None, None, None], found, candidate)
            if len(attempts) > 1:
                with torch.no_grad():
                    broken = broken | (model(found).argmax(dim=1) != y)
    assert found is not None
    return found


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float | Tensor,
    step_size: float | Tensor | None = None,
    start: Start | Tensor = "none",
    generator: torch.Generator | None = None,
) -> Tensor:
    """One signed step of size ``step_size`` (default epsilon) on cross-entropy (arXiv 1412.6572)."""
    step = epsilon if step_size is None else step_size
    return pgd(model, x, y, epsilon=epsilon, step_size=step, steps=1, start=start, generator=generator)


def pgd(model: nn.Module, x: Tensor, y: Tensor, **settings: Unpack[Settings]) -> Tensor:
    """Projected gradient ascent on cross-entropy (Madry et al., arXiv 1706.06083)."""
    return _attack(model, x, y, [cross_entropy], **settings)


def cw(model: nn.Module, x: Tensor, y: Tensor, *, kappa: float = 0.0, **settings: Unpack[Settings]) -> Tensor:
    """Projected gradient ascent on :func:`margin` (arXiv 1608.04644, in its Linf form)."""
    return _attack(model, x, y, [partial(margin, kappa=kappa)], **settings)


def mim(model: nn.Module, x: Tensor, y: Tensor, *, decay: float = 1.0, **settings: Unpack[Settings]) -> Tensor:
    """Momentum iterative method on cross-entropy (arXiv 1710.06081); gradients are normalised per image."""
    return _attack(model, x, y, [cross_entropy], decay=decay, **settings)


def scaled_pgd(model: nn.Module, x: Tensor, y: Tensor, *, alphas: list[float], **settings: Unpack[Settings]) -> Tensor:
    """PGD on CE(alpha * z, y) for each alpha, worst per image (after Hitaj et al., arXiv 2103.01914).

    Undoes the saturation of the loss by very small or very large logits: report it for cosine heads, temperature
    and normalisation methods.
    """
    return _attack(model, x, y, [partial(_scaled, alpha) for alpha in alphas], **settings)


def transfer(model: nn.Module, x: Tensor, y: Tensor, *, surrogate: nn.Module, **settings: Unpack[Settings]) -> Tensor:
    """PGD on ``surrogate``, another model from pixels to logits; ``model`` is only asked which restart to keep.

    Gradients of a model that masks its own do not mislead this attack (Papernot et al., arXiv 1605.07277).
    """
    attempts = settings.pop("restarts", 1)
    found, broken = None, torch.zeros_like(y, dtype=torch.bool)
    for _ in range(attempts):
        candidate = pgd(surrogate, x, y, **settings)
        found = candidate if found is None else torch.where(broken[:, None, None, None], found, candidate)
        if attempts > 1:
            with crafting_mode(model, "eval"), torch.no_grad():
                broken = broken | (model(found).argmax(dim=1) != y)
    assert found is not None
    return found
