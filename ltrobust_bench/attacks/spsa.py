"""Simultaneous perturbation stochastic approximation, SPSA (Spall, IEEE TAC 1992; Uesato et al., ICML 2018, arXiv
1802.05666): gradients by finite differences, of a model that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Unpack

from pydantic import Field

from ltrobust_bench.attacks.terms import FORWARD_SHARE, Count, Pursuing, Size, Stage, Target

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ltrobust_bench.attacks.pursuit import Gradient, Settings, Value

TOGETHER = 2000
"""Images that are passed through the model at once, at most, unless the batch itself has more."""


class SPSA(Pursuing):
    """Ascent on the margin along differences in random directions of plus and minus one."""

    help: ClassVar[str] = "gradients by finite differences, directions of +-1 (SPSA, Uesato et al., ICML 2018)"
    kind: Literal["spsa"]
    draws: Annotated[Count, Field(description="pairs of queries that a step is the mean of")]
    width: Annotated[Size, Field(description="how far from the image it asks")]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One."""
        return {"spsa": on.stage(f"{self.name}/spsa", spsa, **self.settings(on))}

    def passes(self, classes: int) -> float:
        """Two forwards for each draw of each step, and one for each vote."""
        return self.restarts * self.steps * (2 * self.draws + self.votes) * FORWARD_SHARE

    @classmethod
    def standard(cls) -> Self:
        """32 pairs a step."""
        return cls(
            name="spsa", kind="spsa", steps=25, start="uniform", restarts=1, votes=1, draws=32, width="epsilon/2"
        )


def spsa(
    model: nn.Module, x: Tensor, y: Tensor, *, draws: int = 32, width: float, **settings: Unpack[Settings]
) -> Tensor:
    """Ascent on the margin of logits along :func:`differences` in directions v of independent signs.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.pursuit.Settings`. Only logits are asked for.
        draws: pairs of queries that a step is the mean of.
        width: pixel scale; wider than the steps of a model that is piecewise constant.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.attacks.pursuit import on_margin, pursue

    return pursue(model, x, y, [on_margin], gradient=differences(signs, draws, width), **settings)


def signs(point: Tensor, many: int, generator: torch.Generator | None) -> Tensor:
    """``many`` directions for each image, independent signs, shape [many, *point.shape]."""
    from ltrobust_bench.randomness import uniform

    return (uniform((many, *point.shape), point, generator) < 0.5).to(point.dtype).mul_(2).sub_(1)


def differences(directions: Any, draws: int, width: float) -> Gradient:
    """(1/n) sum_i (f(clip(x + width v_i)) - f(clip(x - width v_i))) / (2 width) v_i, clipped to [0, 1].

    If E[v v^T] = I, its expectation is the gradient of a linear or quadratic f where nothing is clipped. A pixel nearer
    to 0 or 1 than its query counts as much less as it moves less, for signs at least half; its sign stays.

    Args:
        directions: from (images [B, ...], many, generator) to v [many, B, ...].
        draws: n.
        width: pixel scale.
    """

    def gradient(
        model: nn.Module, point: Tensor, value: Value, generator: torch.Generator | None
    ) -> tuple[Tensor, None]:
        import torch

        total, left = torch.zeros_like(point), draws
        with torch.no_grad():
            while left:
                many = min(left, max(1, TOGETHER // (2 * len(point))))
                v = directions(point, many, generator)
                asked = torch.cat([point + width * v, point - width * v]).clamp_(0, 1)
                logits = model(asked.flatten(0, 1)).unflatten(0, asked.shape[:2])
                f = torch.stack([value(each) for each in logits])
                rise = (f[:many] - f[many:]) / (2 * width)
                total += (rise.view(*rise.shape, 1, 1, 1) * v).sum(dim=0)
                left -= many
        return total / draws, None

    return gradient
