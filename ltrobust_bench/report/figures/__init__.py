"""Figures sized for a paper's columns, readable in colour, in grey and by the colour-blind."""

from __future__ import annotations

from pathlib import Path

from ltrobust_bench.report.board import Board
from ltrobust_bench.report.figures.bars import groups_figure, per_class_figure
from ltrobust_bench.report.figures.dumbbell import published_figure
from ltrobust_bench.report.figures.heat import heat_map_figure
from ltrobust_bench.report.figures.positions import ranks_figure, seeds_figure
from ltrobust_bench.report.figures.runs import curve_figure, curves_figure, training_figure
from ltrobust_bench.report.figures.scatter import head_tail_figure, tradeoff_figure
from ltrobust_bench.report.figures.style import (
    CLEAN,
    COLOURS,
    FEW,
    GROUP_COLOURS,
    MARKERS,
    ROBUST,
    STYLE,
    WIDTHS,
    Column,
    cut,
    mark_thirds,
    new_figure,
    save,
)

__all__ = [
    "CLEAN",
    "COLOURS",
    "FEW",
    "FILES",
    "GROUP_COLOURS",
    "MARKERS",
    "ROBUST",
    "STYLE",
    "WIDTHS",
    "Column",
    "curve_figure",
    "curves_figure",
    "cut",
    "draw",
    "groups_figure",
    "head_tail_figure",
    "heat_map_figure",
    "mark_thirds",
    "new_figure",
    "per_class_figure",
    "published_figure",
    "ranks_figure",
    "save",
    "seeds_figure",
    "tradeoff_figure",
    "training_figure",
]


FILES = {"per_class": per_class_figure, "tradeoff": tradeoff_figure}
"""What is drawn of every board."""


def draw(board: Board, name: str, folder: Path) -> list[Path]:
    """Write a figure of ``FILES`` into a folder, in every format."""
    return save(FILES[name](board), folder / name)
