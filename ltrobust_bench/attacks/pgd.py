"""Projected gradient ascent on cross-entropy (Madry et al., ICLR 2018, arXiv 1706.06083)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Unpack

from ltrobust_bench.attacks.terms import Climbing, Stage, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrobust_bench.attacks.terms import Settings


class PGD(Climbing):
    """PGD on cross-entropy."""

    help: ClassVar[str] = "projected gradient ascent on cross-entropy (Madry et al., ICLR 2018)"
    kind: Literal["pgd"]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One."""
        return {"pgd": on.stage(f"{self.name}/pgd", pgd, **self.settings(on))}


def pgd(model: nn.Module, x: Tensor, y: Tensor, **settings: Unpack[Settings]) -> Tensor:
    """Projected gradient ascent on cross-entropy.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.terms.Settings`.

    Raises:
        UsageError: for wrong input.

    Example: ``pgd(model, x, y, epsilon=8 / 255, step_size=2 / 255, steps=20)``
    """
    from ltrobust_bench.api import cross_entropy
    from ltrobust_bench.attacks.engine import climb

    return climb(model, x, y, [cross_entropy], **settings)
