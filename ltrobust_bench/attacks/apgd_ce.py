"""Auto-PGD on cross-entropy, by its authors' code (Croce & Hein, ICML 2020, arXiv 2003.01690)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from ltrobust_bench.attacks.official import Official, run_alone
from ltrobust_bench.attacks.terms import Count, Target

if TYPE_CHECKING:
    from torch import Tensor, nn


class APGDCE(Official):
    """Auto-PGD on cross-entropy."""

    help: ClassVar[str] = "auto-PGD on cross-entropy, one of AutoAttack's (official code)"
    kind: Literal["apgd-ce"]
    steps: Count
    rho: Annotated[float, Field(gt=0, lt=1)]

    def build(self, on: Target, **common: Any) -> Any:
        """See :meth:`Official.build`."""
        from pyautoattack.autopgd_base import APGDAttack

        return APGDAttack(on.model, loss="ce", n_iter=self.steps, eot_iter=1, rho=self.rho, **common)

    def passes(self, classes: int) -> float:
        """One for each step."""
        return self.restarts * self.steps

    @classmethod
    def standard(cls) -> Self:
        """As in AutoAttack's standard version."""
        return cls(name="apgd-ce", kind="apgd-ce", steps=100, restarts=1, rho=0.75)


def apgd_ce(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """Auto-PGD on cross-entropy.

    Arguments, result and errors as of :func:`ltrobust_bench.attacks.official.run_alone`.
    """
    return run_alone(APGDCE, model, x, y, **settings)
