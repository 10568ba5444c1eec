"""Expectation over transformation: the mean gradient over draws (Athalye et al., ICML 2018, arXiv 1707.07397)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, Unpack

from pydantic import Field

from ltrobust_bench.attacks.terms import Count, Pursuing, Size, Stage, Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ltrobust_bench.attacks.pursuit import Gradient, Settings, Value


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
        """One for each draw of each step, and a forward for each that a verdict is the mean of."""
        from ltrobust_bench.attacks.terms import FORWARD_SHARE

        return super().passes(classes) * self.draws * (1 + FORWARD_SHARE)

    @classmethod
    def standard(cls) -> Self:
        """10 draws with noise of a quarter of the radius."""
        return cls(name="eot", kind="eot", steps=50, start="uniform", restarts=1, draws=10, noise="epsilon/4")


def eot(
    model: nn.Module, x: Tensor, y: Tensor, *, draws: int = 10, noise: float = 0.0, **settings: Unpack[Settings]
) -> Tensor:
    """Ascent on the margin of logits along :func:`mean_gradient`; a random model is fooled when its mean logits are.

    Noise smooths a model whose gradients hold at a point only (steps, shattered gradients); averaging takes out what a
    random model adds to its own.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.pursuit.Settings`.
        draws: gradients that a step is the mean of, and forwards that a verdict is the mean of.
        noise: standard deviation of normal noise on the images, pixel scale.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.attacks.pursuit import on_margin, pursue

    return pursue(model, x, y, [on_margin], gradient=mean_gradient(draws, noise), votes=draws, **settings)


def mean_gradient(draws: int, noise: float) -> Gradient:
    """(1/n) sum_i grad f(x + noise u_i), u_i ~ N(0, 1), each forward with draws of its own if the model is random."""
    from ltrobust_bench.attacks.pursuit import exact
    from ltrobust_bench.randomness import normal

    def gradient(
        model: nn.Module, point: Tensor, value: Value, generator: torch.Generator | None
    ) -> tuple[Tensor, None]:
        import torch

        total = torch.zeros_like(point)
        for _ in range(draws):
            moved = point + noise * normal(point.shape, point, generator) if noise else point
            total += exact(model, moved.clamp(0, 1), value)[0]
        return total / draws, None

    return gradient
