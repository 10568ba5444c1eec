"""AutoAttack standard: its four attacks by their authors' code (Croce & Hein, ICML 2020, arXiv 2003.01690).

With 4 to 9 classes there are only C - 1 targets. With 2 or 3 the targeted DLR loss does not exist: its place takes
the targeted margin, and the ensemble is called ``aa-small-c``, never AutoAttack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from ltrobust_bench.attacks.apgd_ce import APGDCE
from ltrobust_bench.attacks.apgd_t import APGDT, FEWEST_FOR_DLR
from ltrobust_bench.attacks.fab_t import FABT
from ltrobust_bench.attacks.official import Official, run_alone
from ltrobust_bench.attacks.square import Square
from ltrobust_bench.attacks.terms import Attack, Count, Stage, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

NAMES = ("autoattack", "aa-small-c")
"""What the ensemble is called in records: AutoAttack standard, and what stands in for it with 2 or 3 classes."""
BROKEN_BY = ("not broken", "apgd-ce", "apgd-t", "fab-t", "square")
"""Its attacks in order; a record keeps for each image the place here of the one that broke it first."""


class AutoAttack(Attack):
    """The four attacks in order, each on what the ones before it left standing."""

    help: ClassVar[str] = (
        "AutoAttack standard by its authors' code (Croce & Hein, ICML 2020); aa-small-c below 4 classes"
    )
    kind: Literal["autoattack"]
    steps: Annotated[Count, Field(description="of APGD and FAB")]
    restarts: Annotated[Count, Field(description="of every attack")]
    targets: Annotated[Count, Field(description="target classes of APGD-T and FAB-T; at most C - 1 are attacked")]
    queries: Annotated[Count, Field(description="of Square")]
    p_init: Annotated[float, Field(gt=0, le=1, description="of Square: share of the pixels in the first squares")]
    rho: Annotated[float, Field(gt=0, lt=1, description="APGD's threshold for halving the step")]

    @property
    def parts(self) -> tuple[Official, ...]:
        """The four attacks."""
        each: dict[str, Any] = {"restarts": self.restarts}
        return (
            APGDCE(name="apgd-ce", kind="apgd-ce", steps=self.steps, rho=self.rho, **each),
            APGDT(name="apgd-t", kind="apgd-t", steps=self.steps, rho=self.rho, targets=self.targets, **each),
            FABT(name="fab-t", kind="fab-t", steps=self.steps, targets=self.targets, **each),
            Square(name="square", kind="square", queries=self.queries, p_init=self.p_init, **each),
        )

    def stages(self, on: Target) -> dict[str, Stage]:
        """One for each attack."""
        return {name: stage for part in self.parts for name, stage in part.stages(on).items()}

    def passes(self, classes: int) -> float:
        """Those of its attacks."""
        return sum(part.passes(classes) for part in self.parts)

    def named(self, classes: int) -> str:
        """``aa-small-c`` where the targeted DLR loss does not exist."""
        return NAMES[1] if self.name == NAMES[0] and classes < FEWEST_FOR_DLR else self.name

    @classmethod
    def standard(cls) -> Self:
        """AutoAttack standard."""
        return cls(
            name="autoattack", kind="autoattack", steps=100, restarts=1, targets=9, queries=5000, p_init=0.8, rho=0.75
        )


def autoattack(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """AutoAttack on one batch: each attack in turn on the images still classified correctly.

    Arguments, result and errors as of :func:`ltrobust_bench.attacks.official.run_alone`.
    """
    return run_alone(AutoAttack, model, x, y, **settings)
