"""Geometry of the drawings, in the units of their SVG view box; the templates draw them in the colours of the theme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltrobust_bench.scores.groups import by_size, rank_groups

WIDTH, HEIGHT = 520, 210
LEFT, RIGHT, TOP, BOTTOM = 30, 4, 20, 36
MOST_LABELS = 12


@dataclass(frozen=True)
class Bar:
    """One class. Heights and positions in view-box units, accuracies in per cent.

    Attributes:
        label: of the class.
        images: training images.
        clean, robust: accuracies.
        spread: lowest and highest robust accuracy of the seeds; None for one seed.
        left, right: of the bar of the clean accuracy; the robust one stands inside.
        labelled: whether there is room to name the class.
    """

    label: int
    images: int
    clean: float
    robust: float
    spread: tuple[float, float] | None
    left: float
    right: float
    labelled: bool

    @property
    def middle(self) -> float:
        return round((self.left + self.right) / 2, 2)

    @property
    def inset(self) -> float:
        """Of the robust bar in the clean one, on each side."""
        return round((self.right - self.left) / 5, 2)


@dataclass(frozen=True)
class Chart:
    """Accuracy of every class, largest class first.

    Attributes:
        bars: one per class.
        groups: name of each third of the classes, and the left and right end of its bars.
    """

    bars: list[Bar]
    groups: list[tuple[str, float, float]]

    @staticmethod
    def y(percent: float) -> float:
        """Height at which an accuracy stands."""
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - percent / 100), 2)


def per_class(train_counts: Sequence[int], clean: np.ndarray, robust: np.ndarray) -> Chart:
    """The chart of one entry.

    Args:
        train_counts: training images per label, shape [C].
        clean: accuracy per cent, shape [C].
        robust: worst-case accuracy per cent of each seed, shape [S, C].
    """
    step = (WIDTH - LEFT - RIGHT) / len(train_counts)
    gap = 0.12 * step
    every = -(-len(train_counts) // MOST_LABELS)
    bars = []
    for place, label in enumerate(by_size(train_counts).tolist()):
        seeds = robust[:, label]
        bars.append(
            Bar(
                label=label,
                images=train_counts[label],
                clean=float(clean[label]),
                robust=float(seeds.mean()),
                spread=(float(seeds.min()), float(seeds.max())) if len(seeds) > 1 else None,
                left=round(LEFT + place * step + gap, 2),
                right=round(LEFT + (place + 1) * step - gap, 2),
                labelled=place % every == 0,
            )
        )
    groups, start = [], 0
    for name, members in rank_groups(train_counts).items():
        end = start + len(members)
        groups.append((name, bars[start].left, bars[end - 1].right))
        start = end
    return Chart(bars, groups)
