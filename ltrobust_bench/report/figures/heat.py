"""The worst-case accuracy of every class of every entry, as colours."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ltrobust_bench.report.board import Board
from ltrobust_bench.report.figures.style import FEW, STYLE, Column, add_legend, cast, cut, new_figure, notes_of
from ltrobust_bench.scores.groups import rank_groups

ROWS = 40
"""Entries that one figure has rows for, where nobody chose any."""
ROW = 0.145
"""Inches of a row."""
LETTERS = {"single": 24, "double": 34}
DARK = 52
"""Per cent above which a cell is so dark that its number is white."""


@matplotlib.rc_context(STYLE)
def heat_map_figure(board: Board, column: Column = "double") -> Figure:
    """Worst-case accuracy of every class, largest class first; one row per entry, with numbers where there is room."""
    entries, order, counts = cast(board, ROWS), board.classes, np.asarray(board.key.train_counts)
    values = np.stack([entry.percent("union", "per_class")[order] for entry in entries])
    figure = new_figure(column, 0.95 + ROW * len(entries))
    axes = figure.subplots()
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="auto", interpolation="nearest")
    if len(order) <= (FEW if column == "double" else FEW // 2):
        for (row, place), value in np.ndenumerate(values):
            ink = "white" if value > DARK else "0.15"
            axes.text(place, row, f"{value:.0f}", ha="center", va="center", fontsize=5.5, color=ink)
    start = 0
    for name, members in rank_groups(counts).items():
        if start:
            axes.axvline(start - 0.5, color="black", linewidth=0.7)
        axes.text(start + (len(members) - 1) / 2, -0.7, name, ha="center", va="bottom", color="0.3", fontsize=6)
        start += len(members)
    ticks = np.arange(len(order))[:: -(-len(order) // (20 if column == "double" else 10))]
    axes.set_xticks(ticks, [f"{order[i]}\n{counts[order[i]]}" for i in ticks], fontsize=6)
    axes.set_yticks(range(len(entries)), [cut(entry.label, LETTERS[column]) for entry in entries], fontsize=6)
    axes.set_xlabel("class, and below it its training images")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.01, aspect=30)
    bar.set_label("worst-case accuracy (%)")
    bar.outline.set_visible(False)
    add_legend(figure, [], notes_of(board, entries), "outside upper center", 1, column)
    return figure
