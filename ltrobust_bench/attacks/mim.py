"""Momentum iterative method (Dong et al., CVPR 2018, arXiv 1710.06081)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Unpack

from pydantic import Field

from ltrobust_bench.attacks.terms import Climbing, Stage, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrobust_bench.attacks.terms import Settings


class MIM(Climbing):
    """PGD along a running sum of gradients."""

    help: ClassVar[str] = "momentum iterative method (Dong et al., CVPR 2018)"
    kind: Literal["mim"]
    decay: Annotated[float, Field(ge=0)]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One."""
        return {"mim": on.stage(f"{self.name}/mim", mim, decay=self.decay, **self.settings(on))}


def mim(model: nn.Module, x: Tensor, y: Tensor, *, decay: float = 1.0, **settings: Unpack[Settings]) -> Tensor:
    """Momentum iterative method on cross-entropy; gradients are normalised per image.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.terms.Settings`.
        decay: factor of the sum so far.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.api import cross_entropy
    from ltrobust_bench.attacks.engine import climb

    return climb(model, x, y, [cross_entropy], decay=decay, **settings)
