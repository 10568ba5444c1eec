"""Auto-PGD on the difference-of-logits ratio, by its authors' code (Croce & Hein, ICML 2020, arXiv 2003.01690)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from ltrobust_bench.attacks.official import Official, run_alone
from ltrobust_bench.attacks.terms import Count, Target

if TYPE_CHECKING:
    from torch import Tensor, nn


class APGDDLR(Official):
    """Auto-PGD on the difference-of-logits ratio."""

    help: ClassVar[str] = "auto-PGD on the difference-of-logits ratio (official code)"
    fewest: ClassVar[int] = 3
    kind: Literal["apgd-dlr"]
    steps: Count
    rho: Annotated[float, Field(gt=0, lt=1)]

    def build(self, on: Target, **common: Any) -> Any:
        """See :meth:`Official.build`."""
        from pyautoattack.autopgd_base import APGDAttack

        return APGDAttack(on.model, loss="dlr", n_iter=self.steps, eot_iter=1, rho=self.rho, **common)

    def passes(self, classes: int) -> float:
        """One for each step."""
        return self.restarts * self.steps

    @classmethod
    def standard(cls) -> Self:
        """As in AutoAttack's standard version."""
        return cls(name="apgd-dlr", kind="apgd-dlr", steps=100, restarts=1, rho=0.75)


def apgd_dlr(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """Auto-PGD on the difference-of-logits ratio.

    Arguments, result and errors as of :func:`ltrobust_bench.attacks.official.run_alone`.
    """
    return run_alone(APGDDLR, model, x, y, **settings)
