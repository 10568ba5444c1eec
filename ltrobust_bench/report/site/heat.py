"""The worst-case accuracy of every class, entry by entry, as a table whose cells are coloured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ltrobust_bench.report.board import Board
from ltrobust_bench.report.site.line import Line
from ltrobust_bench.scores.groups import rank_groups

STEPS = 10
"""Shades from 0 to 100 per cent, less one."""
FEW = 20
"""Classes up to which a cell has room for its number."""


@dataclass(frozen=True)
class Heat:
    """Entries in rows, classes from the largest to the smallest in columns.

    Attributes:
        classes: label and training images of each.
        groups: name of each third of the classes, and how many they are.
        rows: each entry's accuracies, per cent.
    """

    classes: list[tuple[int, int]]
    groups: list[tuple[str, int]]
    rows: list[tuple[Line, list[float]]]

    @property
    def numbers(self) -> bool:
        """Whether cells have room for their numbers."""
        return len(self.classes) <= FEW

    @staticmethod
    def shade(percent: float) -> int:
        """Which shade stands for an accuracy, 0 to ``STEPS``."""
        return round(percent * STEPS / 100)


def heat_map(board: Board, lines: Sequence[Line]) -> Heat:
    """The heat map of a board."""
    order, counts = board.classes.tolist(), board.key.train_counts
    return Heat(
        [(label, counts[label]) for label in order],
        [(name, len(members)) for name, members in rank_groups(counts).items()],
        [(line, line.entry.percent("union", "per_class")[order].tolist()) for line in lines],
    )
