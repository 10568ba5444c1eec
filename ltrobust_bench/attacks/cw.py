"""Projected gradient ascent on the margin (after Carlini & Wagner, S&P 2017, arXiv 1608.04644)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, Unpack

from ltrobust_bench.attacks.terms import Climbing, Stage, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrobust_bench.attacks.terms import Settings


class CW(Climbing):
    """PGD on the margin loss."""

    help: ClassVar[str] = "projected gradient ascent on the margin loss (Carlini & Wagner, S&P 2017)"
    kind: Literal["cw"]
    kappa: float

    def stages(self, on: Target) -> dict[str, Stage]:
        """One."""
        return {"cw": on.stage(f"{self.name}/cw", cw, kappa=self.kappa, **self.settings(on))}


def margin(logits: Tensor, y: Tensor, kappa: float = 0.0) -> Tensor:
    """The CW objective -max(z_y - max_{k != y} z_k + kappa, 0) per image, shape [B].

    With kappa = 0 the gradient is zero once an image is misclassified, so the last iterate keeps the success.
    """
    import torch

    true = logits.gather(1, y[:, None]).squeeze(1)
    other = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return -(true - other + kappa).clamp_min(0)


def cw(model: nn.Module, x: Tensor, y: Tensor, *, kappa: float = 0.0, **settings: Unpack[Settings]) -> Tensor:
    """Projected gradient ascent on :func:`margin`.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.terms.Settings`.
        kappa: by how much the largest wrong logit is to exceed the true one.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.attacks.engine import climb

    return climb(model, x, y, [partial(margin, kappa=kappa)], **settings)
