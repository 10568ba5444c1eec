"""PGD on scaled logits, the worst over the scales (after Hitaj et al., arXiv 2103.01914)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Unpack

from pydantic import Field

from ltrobust_bench.attacks.terms import Climbing, Stage, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrobust_bench.attacks.terms import Settings


class ScaledPGD(Climbing):
    """PGD on CE(alpha * z, y) for each alpha, a stage each."""

    help: ClassVar[str] = "PGD on scaled logits, worst over the scales per image (after Hitaj et al. 2021)"
    kind: Literal["scaled-pgd"]
    alphas: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One for each scale."""
        names = {f"alpha={alpha:g}": alpha for alpha in self.alphas}
        return {
            name: on.stage(f"{self.name}/{name}", scaled_pgd, alphas=[alpha], **self.settings(on))
            for name, alpha in names.items()
        }

    def passes(self, classes: int) -> float:
        """One for each step and scale."""
        return super().passes(classes) * len(self.alphas)


def scaled_pgd(model: nn.Module, x: Tensor, y: Tensor, *, alphas: list[float], **settings: Unpack[Settings]) -> Tensor:
    """PGD on CE(alpha * z, y) for each alpha, worst per image.

    Undoes the saturation of the loss by very small or very large logits: report it for cosine heads, temperature
    and normalisation methods.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.terms.Settings`.
        alphas: factors of the logits.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.api import cross_entropy
    from ltrobust_bench.attacks.engine import climb

    def scaled(alpha: float, logits: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(alpha * logits, y)

    return climb(model, x, y, [partial(scaled, alpha) for alpha in alphas], **settings)
