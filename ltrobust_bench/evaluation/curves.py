"""Robust accuracy as the radius grows, and as an attack gets more steps: an honest model's falls to nothing with the
radius, and levels off with the steps."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ltrobust_bench.attacks.ball import LINF, Ball, ThreatModel
from ltrobust_bench.attacks.pgd import PGD
from ltrobust_bench.attacks.terms import Attack
from ltrobust_bench.evaluation.about import About, cells_of, columns_of, in_words
from ltrobust_bench.scores.metrics import Metrics
from ltrobust_bench.terms import Start

CurveKind = Literal["eps", "steps"]
CURVES: tuple[CurveKind, ...] = get_args(CurveKind)
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Multiples of the protocol's epsilon, under PGD-20 with steps of a quarter of the radius."""
STEPS = (1, 2, 5, 10, 20, 50, 100)
"""PGD steps at the protocol's epsilon, each of epsilon / 4; up to 2 of epsilon, 5 of epsilon / 2."""
SHOWN = ("balanced", "head", "medium", "tail")


@dataclass(frozen=True)
class Curve:
    """Accuracies along a curve.

    Attributes:
        kind: ``eps`` or ``steps``.
        x: radius ([0, 1] pixel scale) or number of steps.
        points: metrics at each x.
        epsilon: the protocol's radius.
        images: test images.
        threat_model: the norm of the radius.
        about: which model, images and protocol it is a result of.
    """

    kind: CurveKind
    x: tuple[float, ...]
    points: tuple[Metrics, ...]
    epsilon: float
    images: int
    threat_model: ThreatModel
    about: About | None = None

    def csv(self) -> str:
        """One row per point: x, accuracy in per cent balanced and by group, and what it is about."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([{"eps": "epsilon", "steps": "steps"}[self.kind], *SHOWN, "images", *columns_of(self.about)])
        for x, point in zip(self.x, self.points, strict=True):
            radius = x if self.kind == "eps" else self.epsilon
            terms = in_words(attack_at(self.kind, x), radius, self.threat_model) if x else ""
            about = None if self.about is None else replace(self.about, attacks={"": terms})
            accuracies = (f"{100 * float(getattr(point, g)):.2f}" for g in SHOWN)
            writer.writerow([f"{x:.6g}", *accuracies, self.images, *cells_of(about)])
        return text.getvalue()


def attack_at(kind: CurveKind, x: float) -> Attack:
    """The attack of one point; its radius is the point's for ``eps``, the protocol's for ``steps``."""
    steps = 20 if kind == "eps" else int(x)
    # Few steps must be able to cross the ball.
    size = "epsilon" if steps <= 2 else "epsilon/2" if steps <= 5 else "epsilon/4"
    start: Start = "none" if steps == 1 else "uniform"
    return PGD(name=f"pgd-{steps}", kind="pgd", steps=steps, step_size=size, start=start, restarts=1)


def trace(
    kind: CurveKind,
    epsilon: float,
    images: int,
    measure: Callable[[Attack, float], Metrics],
    clean: Metrics,
    ball: Ball = LINF,
) -> Curve:
    """Measure every point of a curve.

    Args:
        epsilon: the protocol's radius.
        images: how many are attacked.
        measure: metrics under an attack at a radius.
        clean: metrics without one, the point at radius 0.
        ball: the threat model.
    """
    values: Sequence[float] = [factor * epsilon for factor in RADII] if kind == "eps" else STEPS
    points = [clean if x == 0 else measure(attack_at(kind, x), x if kind == "eps" else epsilon) for x in values]
    return Curve(kind, tuple(values), tuple(points), epsilon, images, ball.name)
