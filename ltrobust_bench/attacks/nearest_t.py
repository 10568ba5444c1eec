"""Targeted ascent on the classes whose boundaries are nearest, for data sets of many classes (the order is DeepFool's:
Moosavi-Dezfooli et al., CVPR 2016, arXiv 1511.04599)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, Unpack

from pydantic import Field

from ltrobust_bench.attacks.terms import Count, Pursuing, Stage, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrobust_bench.attacks.ball import Ball
    from ltrobust_bench.attacks.pursuit import Objective, Phases, Settings

MANY = 100
"""Classes from which on attacking the ones with the largest logits is no longer attacking nearly all of them."""


class NearestT(Pursuing):
    """Targeted ascent on z_t - z_y, the nearest boundaries first."""

    help: ClassVar[str] = "targeted ascent, classes by the distance of their linearised boundary (after DeepFool)"
    kind: Literal["nearest-t"]
    targets: Annotated[Count, Field(description="at most C - 1 are attacked")]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One."""
        return {"nearest-t": on.stage(f"{self.name}/nearest-t", nearest_t, **self.settings(on))}

    def passes(self, classes: int) -> float:
        """One for each class for the order, and one for each step and target."""
        return classes + super().passes(classes) * min(self.targets, classes - 1)

    @classmethod
    def standard(cls) -> Self:
        """As many targets as AutoAttack's."""
        return cls(name="nearest-t", kind="nearest-t", steps=50, start="uniform", restarts=1, votes=1, targets=9)


def nearest_t(model: nn.Module, x: Tensor, y: Tensor, *, targets: int = 9, **settings: Unpack[Settings]) -> Tensor:
    """Ascent on z_t - z_y for the ``targets`` first classes of :func:`nearest`, in their order.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.pursuit.Settings`.
        targets: classes that are tried, at most all others.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.attacks.pursuit import pursue

    return pursue(model, x, y, targeted(model, x, y, targets, **settings), **settings)


def targeted(model: nn.Module, x: Tensor, y: Tensor, targets: int, **settings: Unpack[Settings]) -> list[Phases]:
    """A pass on z_t - z_y for each of the ``targets`` first classes of :func:`nearest`, in their order.

    Args:
        model, x, y, targets, settings: see :func:`nearest_t`.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.attacks.ball import LINF
    from ltrobust_bench.attacks.engine import check_images, crafting_mode
    from ltrobust_bench.attacks.pursuit import drawing_from

    check_images(x, y, settings["epsilon"])
    with crafting_mode(model, "eval"), drawing_from(settings.get("generator"), x):
        order = nearest(model, x, y, settings.get("ball", LINF))[:, :targets]

    def towards(rank: int, logits: Tensor, y: Tensor, places: Tensor) -> Tensor:
        target = order[places, rank]
        return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)

    def passed(objective: Objective, step: int) -> Objective:
        return objective

    return [partial(passed, partial(towards, rank)) for rank in range(order.shape[1])]


def nearest(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """The other classes of each image, the one whose boundary is nearest first, int64 [B, C - 1].

    The boundary of class t is (z_y - z_t) / |grad (z_y - z_t)|* away, were the logits linear; |.|* is the dual norm of
    the threat model's. Classes without a gradient come last.
    """
    import torch

    leaf = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(leaf)
        gaps = logits.gather(1, y[:, None]) - logits
        sums = [gaps[:, t].sum() for t in range(gaps.shape[1])]
    distance = torch.full_like(gaps, torch.inf).detach()
    for t, total in enumerate(sums if gaps.requires_grad else ()):
        (slope,) = torch.autograd.grad(total, leaf, retain_graph=True, allow_unused=True)
        if slope is None:
            continue
        length = (slope * ball.steepest(slope)).flatten(1).sum(dim=1)
        distance[:, t] = torch.where(length > 0, gaps[:, t].detach() / length, torch.inf)
    distance.scatter_(1, y[:, None], torch.nan)
    return distance.argsort(dim=1)[:, :-1]  # NaN, the class itself, is last
