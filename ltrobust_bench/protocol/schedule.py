"""Learning rates as terms of a recipe. Importing this does not import torch.

A schedule is a function of progress alone, so that an interrupted run goes on with the same rates::

    rate(base, progress, epochs, lasting)
    momentum_at(progress, epochs, lasting)  # of those that cycle it, too

``base`` is the recipe's ``lr``, ``progress`` the epochs that are done when the rate comes into force (12.25: a quarter
of the 13th epoch is), ``epochs`` the budget, and ``lasting`` for how many epochs it is in force: 1, or one step's part
of an epoch where ``each`` is ``step``.

Another one is a class here (a ``kind``, its terms, ``each``, ``usual``, ``rate``) and its name in :data:`Schedule`;
then files may state it, and ``--set lr_schedule=KIND`` and ``--set schedule.TERM=VALUE`` work.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ltrobust_bench.terms import Strict

Each = Literal["step", "epoch"]
Warmup = Annotated[int, Field(ge=0, description="in so many first epochs the rate grows linearly up to its own value")]
Length = Annotated[
    int, Field(ge=1, description="length of the run that epochs are stated for; others are in proportion")
]


def _warm(warmup_epochs: int, progress: float, lasting: float) -> float:
    """The warm-up's factor: the n-th of N equal parts of the warm-up has n / N."""
    return min(1.0, (progress + lasting) / warmup_epochs) if warmup_epochs else 1.0


class Timed(Strict):
    """What every schedule is."""

    def momentum_at(self, progress: float, epochs: int, lasting: float = 1.0) -> float | None:
        """The optimiser's momentum in force after ``progress`` epochs of ``epochs``; None: the recipe's."""
        return None


class Multistep(Timed):
    """Times ``gamma`` after each milestone."""

    kind: Literal["multistep"]
    milestones: list[int] = Field(description="epochs")
    of: Length
    gamma: float = 0.1
    warmup_epochs: Warmup = 0

    each: ClassVar[Each] = "epoch"
    usual: ClassVar[dict[str, Any]] = {"milestones": [75, 90], "of": 100}

    def rate(self, base: float, progress: float, epochs: int, lasting: float = 1.0) -> float:
        """The rate in force after ``progress`` epochs of ``epochs``."""
        passed = sum(progress * self.of >= m * epochs for m in self.milestones)
        return base * _warm(self.warmup_epochs, progress, lasting) * self.gamma**passed


class RobalCompound(Timed):
    """RoBal's released code: in every epoch the *current* rate is multiplied by ``gamma`` for each milestone reached,
    and in the warm-up by (epoch + 1) / ``warmup_epochs``. Both compound."""

    kind: Literal["robal_compound"]
    milestones: list[int] = Field(description="epochs")
    of: Length
    gamma: float = 0.1
    warmup_epochs: int = Field(default=0, ge=0)

    each: ClassVar[Each] = "epoch"
    usual: ClassVar[dict[str, Any]] = {"milestones": [60, 75], "of": 80}

    def rate(self, base: float, progress: float, epochs: int, lasting: float = 1.0) -> float:
        """The rate in force after ``progress`` epochs of ``epochs``."""
        for epoch in range(1, int(progress) + 2):
            if epoch < self.warmup_epochs:
                base *= (epoch + 1) / self.warmup_epochs
            base *= self.gamma ** sum(epoch * self.of >= m * epochs for m in self.milestones)
        return base


class Cosine(Timed):
    """Half a cosine from the base rate down to ``final`` of it (Loshchilov & Hutter, ICLR 2017, without restarts)."""

    kind: Literal["cosine"]
    final: float = Field(default=0.0, ge=0, le=1, description="share of the base rate that it ends at")
    each: Each = "step"
    warmup_epochs: Warmup = 0

    usual: ClassVar[dict[str, Any]] = {}

    def rate(self, base: float, progress: float, epochs: int, lasting: float = 1.0) -> float:
        """The rate in force after ``progress`` epochs of ``epochs``."""
        share = self.final + (1 - self.final) * (1 + math.cos(math.pi * progress / epochs)) / 2
        return base * _warm(self.warmup_epochs, progress, lasting) * share


class IklCosine(Timed):
    """IKL's released code: half a cosine without its two ends. The n-th of the N epochs after the warm-up has gone
    n / (N + 1) of the way down to 0."""

    kind: Literal["ikl_cosine"]
    warmup_epochs: Warmup = 0

    each: ClassVar[Each] = "epoch"
    usual: ClassVar[dict[str, Any]] = {}

    def rate(self, base: float, progress: float, epochs: int, lasting: float = 1.0) -> float:
        """The rate in force after ``progress`` epochs of ``epochs``."""
        place = progress + lasting - self.warmup_epochs
        if place < 0:
            return base * _warm(self.warmup_epochs, progress, lasting)
        return base * (1 + math.cos(math.pi * place / (epochs - self.warmup_epochs + 1))) / 2


class OneCycle(Timed):
    """Up from ``start`` to the base rate, then down to ``final`` (Smith & Topin, 2018), as torch's ``OneCycleLR`` does:
    the first step has ``start``, the last ``final``, and the peak is the last step of the rise."""

    kind: Literal["onecycle"]
    rise: float = Field(default=0.3, gt=0, lt=1, description="share of the budget in which the rate rises")
    start: float = Field(default=1 / 25, ge=0, le=1, description="share of the base rate that it starts at")
    final: float = Field(default=4e-6, ge=0, le=1, description="share of the base rate that it ends at")
    shape: Literal["cosine", "linear"] = "cosine"
    momentum: list[Annotated[float, Field(ge=0, lt=1)]] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="at both ends, and at the peak of the rate; none: constant",
    )
    each: Each = "step"
    warmup_epochs: Warmup = 0

    usual: ClassVar[dict[str, Any]] = {}

    def rate(self, base: float, progress: float, epochs: int, lasting: float = 1.0) -> float:
        """The rate in force after ``progress`` epochs of ``epochs``."""
        share = self._between((self.start, 1.0, self.final), progress, epochs, lasting)
        return base * _warm(self.warmup_epochs, progress, lasting) * share

    def momentum_at(self, progress: float, epochs: int, lasting: float = 1.0) -> float | None:
        """As the rate, and against it."""
        if self.momentum is None:
            return None
        ends, peak = self.momentum
        return self._between((ends, peak, ends), progress, epochs, lasting)

    def _between(self, values: tuple[float, float, float], progress: float, epochs: int, lasting: float) -> float:
        """What begins at the first value, is the second at the peak, and ends at the third."""
        peak, last = self.rise * epochs - lasting, epochs - lasting
        if progress < peak:
            (first, second, _), done = values, progress / peak
        else:
            (_, first, second), done = values, (progress - peak) / (last - peak)
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return first + (second - first) * done


class Piecewise(Timed):
    """Straight lines through points: a step (or epoch) has the value of the line at its end. Up and down again is the
    cyclic rate of fast adversarial training (Wong et al., ICLR 2020; Rice et al., ICML 2020)."""

    kind: Literal["piecewise"]
    points: list[float] = Field(min_length=2, description="epochs, from 0 to `of`")
    factors: list[Annotated[float, Field(ge=0)]] = Field(description="share of the base rate at each point")
    of: Length
    each: Each = "step"
    warmup_epochs: Warmup = 0

    usual: ClassVar[dict[str, Any]] = {"points": [0.0, 40.0, 100.0], "factors": [0.0, 1.0, 0.0], "of": 100}

    @model_validator(mode="after")
    def _points_of_a_line(self) -> Piecewise:
        if len(self.factors) != len(self.points):
            raise ValueError("factors: must be as many as points")
        rising = all(a < b for a, b in zip(self.points, self.points[1:], strict=False))
        if not rising or self.points[0] != 0 or self.points[-1] != self.of:
            raise ValueError("points: must rise from 0 to `of`")
        return self

    def rate(self, base: float, progress: float, epochs: int, lasting: float = 1.0) -> float:
        """The rate in force after ``progress`` epochs of ``epochs``."""
        place = min((progress + lasting) * self.of / epochs, self.points[-1])
        right = bisect_left(self.points, place)
        done = (place - self.points[right - 1]) / (self.points[right] - self.points[right - 1])
        share = self.factors[right - 1] + (self.factors[right] - self.factors[right - 1]) * done
        return base * _warm(self.warmup_epochs, progress, lasting) * share


Schedule = Annotated[Multistep | RobalCompound | Cosine | IklCosine | OneCycle | Piecewise, Field(discriminator="kind")]
