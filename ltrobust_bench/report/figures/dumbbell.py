"""What papers report, and ours on the same line."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltrobust_bench.report.board import Board
from ltrobust_bench.report.figures.style import ROBUST, STYLE, Column, add_legend, cut, new_figure
from ltrobust_bench.report.published import ATTACKS, PublishedNumber

KINDS = {"printed": ("#000000", "o"), "digitized": ("#E69F00", "s"), "second-hand": ("#D55E00", "^")}
"""Colour and mark of each kind of evidence."""
ROWS = 40
ROW = 0.16
"""Inches of a row."""
LETTERS = 44


@matplotlib.rc_context(STYLE)
def published_figure(board: Board, pairs: Sequence[tuple[PublishedNumber, float]], column: Column = "double") -> Figure:
    """A line from each published number to ours.

    Args:
        pairs: a published accuracy over all classes, and ours of the same metric, per cent; at least one.
    """
    metrics = list(ATTACKS)

    def place(pair: tuple[PublishedNumber, float]) -> tuple[object, ...]:
        number = pair[0]
        attack = number.metric.removeprefix("balanced_")
        return metrics.index(attack), number.metric, number.as_ours, number.paper, number.name

    ordered = sorted(pairs, key=place)
    shown = ordered[:ROWS]
    figure = new_figure(column, 1.0 + ROW * len(shown))
    axes = figure.subplots()
    for row, (number, ours) in enumerate(shown):
        colour, marker = KINDS[number.kind]
        axes.plot([float(number.value), ours], [row, row], color="0.7", linewidth=1.0, zorder=1)
        axes.plot([float(number.value)], [row], marker, color=colour, markersize=4, markerfacecolor="none")
        axes.plot([ours], [row], "D", color=ROBUST, markersize=3.8)
    letters = LETTERS if column == "double" else LETTERS // 2
    axes.set_yticks(range(len(shown)), [cut(_label(number, board), letters) for number, _ in shown], fontsize=6)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("accuracy (%)")
    axes.grid(axis="x", linewidth=0.3, alpha=0.5)
    axes.set_axisbelow(True)
    handles: list[Artist] = [Line2D([], [], color=ROBUST, marker="D", markersize=3.8, linewidth=0, label="ours")]
    for kind, (colour, marker) in KINDS.items():
        if any(number.kind == kind for number, _ in shown):
            hollow = {"markersize": 4, "markerfacecolor": "none"}
            handles.append(
                Line2D([], [], color=colour, marker=marker, linewidth=0, label=f"published, {kind}", **hollow)  # type: ignore[arg-type]
            )
    notes = [*board.warnings, "papers differ in budget, checkpoint and attack; nothing here is ranked"]
    if len(shown) < len(ordered):
        notes.append(f"{len(shown)} of {len(ordered)} numbers")
    columns = len(handles) if column == "double" else 2
    add_legend(figure, handles, notes, "outside upper center", columns, column)
    return figure


def _label(number: PublishedNumber, board: Board) -> str:
    """Method, metric, and the paper's network where it is not ours."""
    network = "" if number.model == board.key.model else f", {number.model or 'network not stated'}"
    return f"{number.metric}: {number.name}, {number.paper}{network}"
