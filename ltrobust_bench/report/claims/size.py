"""Size against difficulty: the same images with the class sizes in two orders, and each class's own ceiling.

In label order the small classes of CIFAR-10 are horse, ship and truck, the middle ones bird, cat and deer, so a class's
accuracy says nothing about its size. Between two orders of the same sizes a class keeps its difficulty and changes its
size: the slope of the change of accuracy over the change of log2 size is what size does. Sizes are permuted, so their
changes add up to 0 and a change that all classes share drops out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.report.claims.measure import SEEDS, Verdict
from ltrobust_bench.scores.groups import rank_groups
from ltrobust_bench.scores.intervals import half_width


@dataclass(frozen=True)
class SizeEffect:
    """What twice as many training images do to a class's worst-case accuracy in one entry, everything else alike.

    Attributes:
        label: of the entry.
        label_order, permuted: accuracy of each class in the two orders, mean over seeds, per cent, shape [C].
        slope: points per doubling, mean over seeds.
        half: half the width of its 95 % interval: the wider of t over seeds and that of the regression over classes.
        gaps: head less tail in points, in label order and permuted.
        seeds: those that both orders have.
    """

    label: str
    label_order: np.ndarray
    permuted: np.ndarray
    slope: float
    half: float
    gaps: tuple[float, float]
    seeds: tuple[int, ...]

    @property
    def verdict(self) -> Verdict:
        """Whether a class is more robust for being larger."""
        if len(self.seeds) < SEEDS or abs(self.slope) <= self.half:
            return "not resolved at this scale"
        return "confirmed" if self.slope > 0 else "refuted"


def size_effects(label_order: Board, permuted: Board) -> list[SizeEffect]:
    """Every entry that both boards have, best of the first board first."""
    others = {entry.label: entry for entry in permuted.entries}
    sizes = (np.asarray(board.key.train_counts, dtype=float) for board in (label_order, permuted))
    before, after = (np.log2(counts) for counts in sizes)
    return [
        effect
        for entry in label_order.entries
        if entry.label in others and (effect := _effect(entry, others[entry.label], after - before)) is not None
    ]


def _effect(entry: Entry, other: Entry, change: np.ndarray) -> SizeEffect | None:
    by_seed = [{run.run.seed: row for row, run in enumerate(one.runs)} for one in (entry, other)]
    seeds = tuple(sorted(by_seed[0].keys() & by_seed[1].keys()))
    if not seeds:
        return None
    first, second = (
        one.per_seed("union", "per_class")[[rows[seed] for seed in seeds]]
        for one, rows in zip((entry, other), by_seed, strict=True)
    )
    slope, half = slope_of(second - first, change)
    gaps = tuple(
        float(head_less_tail(accuracy.mean(axis=0), one.runs[0].run.train_counts))
        for accuracy, one in ((first, entry), (second, other))
    )
    return SizeEffect(entry.label, first.mean(axis=0), second.mean(axis=0), slope, half, gaps, seeds)  # type: ignore[arg-type]


def slope_of(gain: np.ndarray, change: np.ndarray) -> tuple[float, float]:
    """Slope of ``gain`` over ``change`` through the mean, and half the width of its 95 % interval.

    Args:
        gain: change of accuracy, points, shape [S, C].
        change: change of log2 size, shape [C], which adds up to 0.
    """
    spread = float((change**2).sum())
    slopes = gain @ change / spread
    mean = gain.mean(axis=0)
    rest = mean - mean.mean() - slopes.mean() * change
    error = np.sqrt((rest**2).sum() / (len(change) - 2) / spread)
    half = float(half_width(error * np.sqrt(len(change) - 1), len(change) - 1))  # t with C - 2 degrees of freedom
    if len(slopes) > 1:
        half = max(half, float(half_width(slopes.std(ddof=1), len(slopes))))
    return float(slopes.mean()), half


def head_less_tail(accuracy: np.ndarray, train_counts: list[int]) -> float:
    """Mean of the head's classes less that of the tail's, by the thirds of ``train_counts``."""
    groups = rank_groups(train_counts)
    return float(accuracy[groups["head"]].mean() - accuracy[groups["tail"]].mean())
