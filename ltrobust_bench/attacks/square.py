"""Square by its authors' code, a black-box attack (Andriushchenko et al., ECCV 2020, arXiv 1912.00049)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from ltrobust_bench.attacks.official import Official, run_alone
from ltrobust_bench.attacks.terms import FORWARD_SHARE, Count, Target

if TYPE_CHECKING:
    from torch import Tensor, nn


class Square(Official):
    """Square, a random search that asks for logits only."""

    help: ClassVar[str] = "Square, black-box, one of AutoAttack's (official code)"
    kind: Literal["square"]
    queries: Count
    p_init: Annotated[float, Field(gt=0, le=1)]

    def build(self, on: Target, **common: Any) -> Any:
        """See :meth:`Official.build`."""
        from pyautoattack.square import SquareAttack

        class DrawnHere(SquareAttack):
            """The same draws, whose places stay on the processor: as tensors on a GPU each bound of a slice would wait
            for it, four times a query."""

            def random_int(self, low: int = 0, high: int = 1, shape: tuple[int, ...] = (1,)) -> int:
                import torch

                return int(low + (high - low) * torch.rand(shape))

        return DrawnHere(on.model, p_init=self.p_init, n_queries=self.queries, resc_schedule=False, **common)

    def passes(self, classes: int) -> float:
        """A forward for each query."""
        return self.restarts * self.queries * FORWARD_SHARE

    @classmethod
    def standard(cls) -> Self:
        """As in AutoAttack's standard version."""
        return cls(name="square", kind="square", restarts=1, queries=5000, p_init=0.8)


def square(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """Square, a random search that asks for logits only.

    Arguments, result and errors as of :func:`ltrobust_bench.attacks.official.run_alone`.
    """
    return run_alone(Square, model, x, y, **settings)
