"""Natural evolution strategies, NES (Ilyas et al., ICML 2018, arXiv 1804.08598): gradients by finite differences in
normal directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, Unpack

from pydantic import Field

from ltrobust_bench.attacks.terms import FORWARD_SHARE, Count, Pursuing, Size, Stage, Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ltrobust_bench.attacks.pursuit import Settings


class NES(Pursuing):
    """Ascent on the margin along antithetic differences in normal directions."""

    help: ClassVar[str] = "gradients by finite differences, normal directions (NES, Ilyas et al., ICML 2018)"
    kind: Literal["nes"]
    draws: Annotated[Count, Field(description="pairs of queries that a step is the mean of")]
    width: Annotated[Size, Field(description="standard deviation of the search distribution")]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One."""
        return {"nes": on.stage(f"{self.name}/nes", nes, **self.settings(on))}

    def passes(self, classes: int) -> float:
        """Two forwards for each draw of each step, and one for each vote."""
        return self.restarts * self.steps * (2 * self.draws + self.votes) * FORWARD_SHARE

    @classmethod
    def standard(cls) -> Self:
        """32 pairs a step."""
        return cls(name="nes", kind="nes", steps=25, start="uniform", restarts=1, votes=1, draws=32, width="epsilon/2")


def nes(
    model: nn.Module, x: Tensor, y: Tensor, *, draws: int = 32, width: float, **settings: Unpack[Settings]
) -> Tensor:
    """Ascent on the margin of logits along :func:`ltrobust_bench.attacks.spsa.differences` in directions v ~ N(0, I).

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.pursuit.Settings`. Only logits are asked for.
        draws: pairs of queries that a step is the mean of.
        width: standard deviation of the search distribution, pixel scale.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.attacks.pursuit import on_margin, pursue
    from ltrobust_bench.attacks.spsa import differences

    return pursue(model, x, y, [on_margin], gradient=differences(normals, draws, width), **settings)


def normals(point: Tensor, many: int, generator: torch.Generator | None) -> Tensor:
    """``many`` directions for each image, independent N(0, 1), shape [many, *point.shape]."""
    from ltrobust_bench.randomness import normal

    return normal((many, *point.shape), point, generator)
