"""Targeted auto-PGD by its authors' code (Croce & Hein, ICML 2020, arXiv 2003.01690)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from ltrobust_bench.attacks.official import Official, run_alone
from ltrobust_bench.attacks.terms import Count, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

FEWEST_FOR_DLR = 4
"""Classes that the targeted difference-of-logits ratio needs: it divides by the third and fourth logit."""


class APGDT(Official):
    """Targeted auto-PGD, on the difference-of-logits ratio where there are four classes, else on the margin."""

    help: ClassVar[str] = "targeted auto-PGD, one of AutoAttack's (official code)"
    kind: Literal["apgd-t"]
    steps: Count
    rho: Annotated[float, Field(gt=0, lt=1)]
    targets: Annotated[Count, Field(description="at most C - 1 are attacked")]

    def build(self, on: Target, **common: Any) -> Any:
        """See :meth:`Official.build`."""
        from pyautoattack.autopgd_base import APGDAttack_targeted

        class TargetedMargin(APGDAttack_targeted):
            """APGD on z_t - z_y, without DLR's division by a difference of the third and fourth logit."""

            def dlr_loss_targeted(self, x: Tensor, y: Tensor) -> Tensor:
                import torch

                rows = torch.arange(len(x), device=x.device)
                return x[rows, self.y_target] - x[rows, y]

        attack = APGDAttack_targeted if on.classes >= FEWEST_FOR_DLR else TargetedMargin
        return attack(
            on.model,
            n_target_classes=min(self.targets, on.classes - 1),
            n_iter=self.steps,
            eot_iter=1,
            rho=self.rho,
            **common,
        )

    def passes(self, classes: int) -> float:
        """One for each step and target."""
        return self.restarts * self.steps * min(self.targets, classes - 1)

    @classmethod
    def standard(cls) -> Self:
        """As in AutoAttack's standard version."""
        return cls(name="apgd-t", kind="apgd-t", steps=100, restarts=1, rho=0.75, targets=9)


def apgd_t(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """Targeted auto-PGD, on the difference-of-logits ratio where there are four classes, else on the margin.

    Arguments, result and errors as of :func:`ltrobust_bench.attacks.official.run_alone`.
    """
    return run_alone(APGDT, model, x, y, **settings)
