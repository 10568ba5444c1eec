"""Threat models: the ball around an image in which an adversarial image must lie, always cut by the box [0, 1].

A threat model is one object here, and everything that depends on the norm asks it. Importing this does not import
torch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ThreatModel = Literal["Linf", "L2"]
ROUNDING = 2.0**-24
"""Half the distance of two float32 numbers just below 1: by so much a pixel can be rounded, in each of two sums."""


class Ball(ABC):
    """All perturbations of a norm of at most epsilon.

    In every method ``x`` are images in [0, 1], shape [B, channels, height, width], D pixels each; ``epsilon`` is the
    radius on the [0, 1] pixel scale, one value or one per image [B]; ``generator`` may be on another device than ``x``.

    Attributes:
        name: as protocols state it.
        tex: the norm as LaTeX writes it.
        symbol: the norm as pages write it.
    """

    name: ClassVar[ThreatModel]
    tex: ClassVar[str]
    symbol: ClassVar[str]

    @abstractmethod
    def inside(self, x: Tensor, epsilon: float | Tensor, generator: torch.Generator | None) -> Tensor:
        """A random perturbation in the ball for each image, shape of ``x``: the start ``uniform``."""

    def one_sided(self, x: Tensor, epsilon: float | Tensor, generator: torch.Generator | None) -> Tensor:
        """A random perturbation in the ball with no negative entry, shape of ``x``: the start ``one_sided``."""
        return self.inside(x, epsilon, generator).abs_()

    @abstractmethod
    def on_sphere(self, x: Tensor, epsilon: float | Tensor, generator: torch.Generator | None) -> Tensor:
        """A random perturbation of length epsilon for each image, shape of ``x``."""

    @abstractmethod
    def steepest(self, gradient: Tensor) -> Tensor:
        """The perturbation of length 1 along which a linear function grows fastest; 0 where the gradient is 0.

        Args:
            gradient: shape [B, channels, height, width].
        """

    @abstractmethod
    def projection(self, x: Tensor, epsilon: float | Tensor) -> Callable[[Tensor], Tensor]:
        """The function that brings images [B, ...] back into the ball around ``x``, then into [0, 1].

        ``x`` is in the box, so the second step only moves them closer to it: they stay in the ball.
        """

    def project(self, moved: Tensor, x: Tensor, epsilon: float | Tensor) -> Tensor:
        """``moved`` brought back into the ball around ``x`` and into [0, 1]."""
        return self.projection(x, epsilon)(moved)

    @abstractmethod
    def distance(self, moved: Tensor, x: Tensor) -> Tensor:
        """How far each image is from ``x``, computed in float64, shape [B]."""

    @abstractmethod
    def tolerance(self, pixels: int, epsilon: float) -> float:
        """By how much an honest attack in float32 may exceed epsilon on images of that many pixels."""

    @abstractmethod
    def grey(self, pixels: int) -> float:
        """The radius at which any image of that many pixels can become grey."""

    def left(self, moved: Tensor, x: Tensor, epsilon: float) -> Tensor:
        """Which images are farther than epsilon from ``x``, outside [0, 1] or not finite; bool, shape [B].

        >>> Linf().left(torch.tensor([[[[0.7]]]]), torch.tensor([[[[0.5]]]]), 0.1)
        tensor([True])
        """
        limit = epsilon + self.tolerance(x[0].numel() if len(x) else 1, epsilon)
        flat = moved.flatten(1)
        # A comparison with NaN is false, so what is asked is whether all is well.
        return ~((self.distance(moved, x) <= limit) & (flat >= 0).all(1) & (flat <= 1).all(1))


class Linf(Ball):
    """No pixel moves by more than epsilon."""

    name = "Linf"
    tex = r"$\ell_\infty$"
    symbol = "L∞"

    def inside(self, x: Tensor, epsilon: float | Tensor, generator: torch.Generator | None) -> Tensor:
        """U[-eps, eps] for each pixel (Madry et al., ICLR 2018)."""
        return _uniform(x, generator).mul_(2).sub_(1).mul_(per_image(epsilon, x))

    def one_sided(self, x: Tensor, epsilon: float | Tensor, generator: torch.Generator | None) -> Tensor:
        """eps U[0, 1) for each pixel."""
        return _uniform(x, generator).mul_(per_image(epsilon, x))

    def on_sphere(self, x: Tensor, epsilon: float | Tensor, generator: torch.Generator | None) -> Tensor:
        """A point of the cube, stretched until it touches a face."""
        noise = _uniform(x, generator).mul_(2).sub_(1)
        return noise / noise.abs().amax(dim=(1, 2, 3), keepdim=True) * per_image(epsilon, x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """sign(g), with sign(0) = 0."""
        return gradient.sign()

    def projection(self, x: Tensor, epsilon: float | Tensor) -> Callable[[Tensor], Tensor]:
        """Each pixel clamped; the nearest point of the ball cut by the box."""
        radius = per_image(epsilon, x)
        # x is in [0, 1], so clamping into the ball cut by [0, 1] is clamping into the ball, then into [0, 1].
        low, high = (x - radius).clamp_(0, 1), (x + radius).clamp_(0, 1)
        return lambda moved: moved.clamp(low, high)

    def distance(self, moved: Tensor, x: Tensor) -> Tensor:
        """The largest change of a pixel."""
        return (moved.double() - x.double()).flatten(1).abs().amax(dim=1)

    def tolerance(self, pixels: int, epsilon: float) -> float:
        """2^-24: a pixel's bound is epsilon and one sum, each rounded by at most 2^-25."""
        return ROUNDING

    def grey(self, pixels: int) -> float:
        """0.5: black and white are that far from grey."""
        return 0.5


class L2(Ball):
    """The square root of the sum of all squared changes is at most epsilon."""

    name = "L2"
    tex = r"$\ell_2$"
    symbol = "L₂"

    def inside(self, x: Tensor, epsilon: float | Tensor, generator: torch.Generator | None) -> Tensor:
        """Uniform direction, length uniform in [0, eps] (Rice et al., ICML 2020, released code).

        A point uniform in the ball's *volume* would lie on its surface in all but name: of D = 3072 dimensions the
        median length is 0.9998 eps.
        """
        point = self.on_sphere(x, epsilon, generator)
        return point.mul_(_uniform(x[:, :1, :1, :1], generator))

    def on_sphere(self, x: Tensor, epsilon: float | Tensor, generator: torch.Generator | None) -> Tensor:
        """A normal vector has a uniform direction."""
        from ltrobust_bench.randomness import normal

        noise = normal(x.shape, x, generator)
        return noise.div_(_length(noise)).mul_(per_image(epsilon, x))

    def steepest(self, gradient: Tensor) -> Tensor:
        """g / |g|; divided by its largest entry first, so that squares of tiny gradients do not vanish."""
        largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
        # An image without a gradient (0 or NaN) stays where it is, as it does in Linf.
        scaled = (gradient / largest).where(largest > 0, gradient.new_zeros(()))
        return scaled / _length(scaled).clamp_min(1)

    def projection(self, x: Tensor, epsilon: float | Tensor) -> Callable[[Tensor], Tensor]:
        """The perturbation shortened to epsilon, then each pixel clamped.

        The first step gives the nearest point of the ball. After the second it is in the ball and the box, if not
        always the nearest point of both; it is what AutoAttack and Rice et al. do.
        """
        radius = per_image(epsilon, x)

        def back(moved: Tensor) -> Tensor:
            change = moved - x
            # Far below any length that matters; without it, 0 / 0 for an image that has not moved.
            shrink = (radius / _length(change).clamp_min(1e-30)).clamp(max=1)
            return change.mul_(shrink).add_(x).clamp_(0, 1)

        return back

    def distance(self, moved: Tensor, x: Tensor) -> Tensor:
        """The root of the sum of squares over all pixels."""
        return (moved.double() - x.double()).flatten(1).norm(dim=1)

    def tolerance(self, pixels: int, epsilon: float) -> float:
        """2^-24 sqrt(D) + 2^-20 eps.

        The first is the length of a vector whose D entries are all rounded by 2^-24. The second is for the computed
        length: float32 adds D squares in pairs, log2(D) roundings deep, so its relative error is at most 2^-25
        log2(D) + a few 2^-24, below 2^-20 for any image.
        """
        return ROUNDING * math.sqrt(pixels) + 2.0**-20 * epsilon

    def grey(self, pixels: int) -> float:
        """0.5 sqrt(D): an image of black and white pixels only is that far from grey."""
        return 0.5 * math.sqrt(pixels)


BALLS: dict[ThreatModel, Ball] = {ball.name: ball for ball in (Linf(), L2())}
"""By the name that protocols state."""
LINF = BALLS["Linf"]


def per_image(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A value for all images as it is; one value per image [B] in a shape that multiplies with ``x``."""
    if isinstance(value, (int, float)) or value.dim() != 1:
        return value
    return value.to(x.dtype).view(-1, *([1] * (x.dim() - 1)))


def _uniform(x: Tensor, generator: torch.Generator | None) -> Tensor:
    from ltrobust_bench.randomness import uniform

    return uniform(x.shape, x, generator)


def _length(change: Tensor) -> Tensor:
    """L2 norm of each image, shape [B, 1, 1, 1]."""
    return change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
