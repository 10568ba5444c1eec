"""Targeted FAB by its authors' code (Croce & Hein, ICML 2020, arXiv 1907.02044)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from ltrobust_bench.attacks.official import Official, run_alone
from ltrobust_bench.attacks.terms import Count, Target

if TYPE_CHECKING:
    from torch import Tensor, nn


class FABT(Official):
    """Targeted FAB, which looks for the nearest adversarial image."""

    help: ClassVar[str] = "targeted FAB, one of AutoAttack's (official code)"
    kind: Literal["fab-t"]
    steps: Count
    targets: Annotated[Count, Field(description="at most C - 1 are attacked")]

    def build(self, on: Target, **common: Any) -> Any:
        """See :meth:`Official.build`."""
        from pyautoattack.fab_pt import FABAttack_PT

        targets = min(self.targets, on.classes - 1)
        return FABAttack_PT(on.model, n_iter=self.steps, n_target_classes=targets, targeted=True, **common)

    def passes(self, classes: int) -> float:
        """One for each step and target."""
        return self.restarts * self.steps * min(self.targets, classes - 1)

    @classmethod
    def standard(cls) -> Self:
        """As in AutoAttack's standard version."""
        return cls(name="fab-t", kind="fab-t", steps=100, restarts=1, targets=9)


def fab_t(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """Targeted FAB, which looks for the nearest adversarial image.

    Arguments, result and errors as of :func:`ltrobust_bench.attacks.official.run_alone`.
    """
    return run_alone(FABT, model, x, y, **settings)
