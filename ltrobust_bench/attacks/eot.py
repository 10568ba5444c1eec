"""Expectation over transformation: the mean gradient over draws (Athalye et al., ICML 2018, arXiv 1707.07397)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, Unpack

from pydantic import Field

from ltrobust_bench.attacks.terms import FORWARD_SHARE, Count, Pursuing, Size, Stage, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrobust_bench.attacks.pursuit import Settings


class EOT(Pursuing):
    """Ascent on the margin along the mean gradient over draws of input noise and of what the model draws itself."""

    help: ClassVar[str] = "mean gradient over input noise and the model's own draws (EOT, Athalye et al., ICML 2018)"
    kind: Literal["eot"]
    draws: Annotated[Count, Field(description="gradients that a step is the mean of")]
    noise: Annotated[Size, Field(description="standard deviation of the input noise; 0: only the model draws")]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One."""
        return {"eot": on.stage(f"{self.name}/eot", eot, **self.settings(on))}

    def passes(self, classes: int) -> float:
        """One for each draw of each step, and a forward for each vote."""
        return self.restarts * self.steps * (self.draws + self.votes * FORWARD_SHARE)

    @classmethod
    def standard(cls) -> Self:
        """10 draws with noise of a quarter of the radius, and as many votes."""
        return cls(name="eot", kind="eot", steps=50, start="uniform", restarts=1, votes=10, draws=10, noise="epsilon/4")


def eot(
    model: nn.Module, x: Tensor, y: Tensor, *, draws: int = 10, noise: float = 0.0, **settings: Unpack[Settings]
) -> Tensor:
    """Ascent on the margin of logits along :func:`~.pursuit.mean_gradient`; a random model is fooled when its mean
    logits are.

    Noise smooths a model whose gradients hold at a point only (steps, shattered gradients); averaging takes out what a
    random model adds to its own.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.pursuit.Settings`.
        draws: gradients that a step is the mean of.
        noise: standard deviation of normal noise on the images, pixel scale.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.attacks.pursuit import mean_gradient, on_margin, pursue

    return pursue(model, x, y, [on_margin], gradient=mean_gradient(draws, noise), **settings)
