"""One gradient step (Goodfellow et al., ICLR 2015, arXiv 1412.6572)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ltrobust_bench.attacks.ball import LINF, Ball
from ltrobust_bench.attacks.terms import Attack, Size, Stage, Target
from ltrobust_bench.numbers import number
from ltrobust_bench.terms import Start

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class FGSM(Attack):
    """One step of steepest ascent on cross-entropy; in Linf a signed one."""

    help: ClassVar[str] = "one signed gradient step (Goodfellow et al., ICLR 2015)"
    kind: Literal["fgsm"]
    step_size: Size
    start: Start

    def stages(self, on: Target) -> dict[str, Stage]:
        """One."""
        size = number(self.step_size, on.epsilon)
        return {"fgsm": on.stage(f"{self.name}/fgsm", fgsm, step_size=size, start=self.start)}

    def passes(self, classes: int) -> float:
        """One."""
        return 1


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float | Tensor,
    step_size: float | Tensor | None = None,
    ball: Ball = LINF,
    start: Start | Tensor = "none",
    generator: torch.Generator | None = None,
) -> Tensor:
    """One step of length ``step_size`` on cross-entropy.

    Args:
        model, x, y, and the rest: see :class:`ltrobust_bench.attacks.terms.Settings`.
        step_size: default epsilon.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.attacks.pgd import pgd

    size = epsilon if step_size is None else step_size
    return pgd(model, x, y, epsilon=epsilon, step_size=size, steps=1, ball=ball, start=start, generator=generator)
