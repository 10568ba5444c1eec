"""Entries in rows: how far seeds spread, and how the order changes with what is measured."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltrobust_bench.report.board import METRICS, Board, Entry
from ltrobust_bench.report.figures.style import (
    MOST,
    OTHERS,
    ROBUST,
    STYLE,
    Column,
    add_legend,
    cast,
    cut,
    looks_of,
    new_figure,
    notes_of,
)
from ltrobust_bench.scores.groups import rank_groups

ROWS = 40
"""Entries that one figure has rows for."""
ROW = 0.145
"""Inches of a row."""
LETTERS = 30
"""Letters of a label."""
SHORT = 24
"""Letters of a label that stands on both sides of a single column."""


@matplotlib.rc_context(STYLE)
def seeds_figure(board: Board, column: Column = "double") -> Figure:
    """Worst-case accuracy of every seed, their mean and its 95 % interval: over all classes, and over the tail."""
    entries = cast(board, ROWS)
    kinds = {"balanced": "all classes"} | ({"tail": "tail third"} if rank_groups(board.key.train_counts) else {})
    if column == "single":
        kinds = {"balanced": "all classes"}
    figure = new_figure(column, 0.95 + ROW * len(entries))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for panel, (metric, name) in zip(panels, kinds.items(), strict=True):
        for row, entry in enumerate(entries):
            _spread(panel, entry, metric, row)
        panel.set_xlabel(f"worst-case accuracy, {name} (%)")
        panel.grid(axis="x", linewidth=0.3, alpha=0.5)
        panel.set_axisbelow(True)
    panels[0].set_yticks(range(len(entries)), [cut(entry.label, LETTERS) for entry in entries], fontsize=6)
    panels[0].set_ylim(len(entries) - 0.4, -0.6)
    handles: list[Artist] = [
        Line2D([], [], color="0.25", marker="o", markersize=2.6, markerfacecolor="none", linewidth=0, label="seed"),
        Line2D([], [], color=ROBUST, marker="|", markersize=6, linewidth=0, markeredgewidth=1.4, label="mean"),
        Line2D([], [], color=ROBUST, linewidth=1.4, alpha=0.45, label="95 % interval (t over seeds)"),
    ]
    if any(len(entry.runs) == 1 for entry in entries):
        handles.append(Line2D([], [], color="0.6", linewidth=1.4, label="of one run (Wilson)"))
    columns = len(handles) if column == "double" else 2
    add_legend(figure, handles, notes_of(board, entries), "outside upper center", columns, column)
    return figure


def _spread(panel: Axes, entry: Entry, metric: str, row: int) -> None:
    at = entry.rows.index("union"), METRICS.index(metric)
    low, high = 100 * entry.spread.low[at], 100 * entry.spread.high[at]
    single = len(entry.runs) == 1
    panel.hlines(row, low, high, color="0.6" if single else ROBUST, linewidth=1.4, alpha=1.0 if single else 0.45)
    seeds = entry.per_seed("union", metric)
    panel.plot(
        [float(entry.percent("union", metric))], [row], "|", color=ROBUST, markersize=6, markeredgewidth=1.4, zorder=3
    )
    panel.plot(
        seeds, [row] * len(seeds), "o", color="0.25", markersize=2.6, markerfacecolor="none", markeredgewidth=0.6
    )


@matplotlib.rc_context(STYLE)
def ranks_figure(board: Board, column: Column = "double") -> Figure:
    """Places of the ranked entries by clean accuracy, by AutoAttack, and by AutoAttack on the tail.

    The board must have AutoAttack, at least 3 classes, and ranks.
    """
    assert board.autoattack is not None
    ranked = [entry for entry in board.entries if entry.rank is not None]
    entries = ranked if board.chosen_from else ranked[:ROWS]
    looks, named = looks_of(board), {entry.label for entry in cast(board, MOST)}
    orders = [
        _places(entries, attack, metric)
        for attack, metric in (("clean", "balanced"), (board.autoattack, "balanced"), (board.autoattack, "tail"))
    ]
    figure = new_figure(column, 0.75 + ROW * len(entries))
    axes = figure.subplots()
    for i, entry in reversed(list(enumerate(entries))):
        own = [order[i] for order in orders]
        apart = entry.label in named
        colour, marker = looks[entry.label] if apart else (OTHERS, "o")
        style: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 1.1 if apart else 0.7}
        style |= {"markersize": 4 if apart else 2.5, "zorder": 3 if apart else 1, "clip_on": False}
        axes.plot(range(3), own, **style)
        text: dict[str, Any] = {
            "textcoords": "offset points",
            "fontsize": 6 if column == "double" else 5,
            "va": "center",
            "color": "black" if apart else "0.35",
        }
        label = cut(entry.label, LETTERS if column == "double" else SHORT)
        axes.annotate(f"{label}  {own[0]}", (0, own[0]), xytext=(-5, 0), ha="right", **text)
        axes.annotate(f"{own[2]}  {label}", (2, own[2]), xytext=(5, 0), ha="left", **text)
    attack = "AutoAttack" if column == "double" else "AA"
    axes.set_xticks(range(3), ["clean", attack, f"{attack}, tail"])
    axes.xaxis.tick_top()
    axes.set_yticks([])
    axes.set_ylim(len(entries) + 0.6, 0.4)
    axes.set_xlim(-0.02, 2.02)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    notes = [*board.warnings, "places by mean accuracy; neighbours may not be told apart by the data"]
    if len(entries) < len(ranked):
        notes.append(f"best {len(entries)} of {len(ranked)} ranked entries")
    add_legend(figure, [], notes, "outside lower center", 1, column)
    return figure


def _places(entries: list[Entry], attack: str, metric: str) -> list[int]:
    """Place of each entry, 1 for the highest mean; equals in the board's order."""
    values = np.asarray([round(float(entry.percent(attack, metric)), 6) for entry in entries])
    places = np.empty(len(entries), dtype=int)
    places[np.argsort(-values, kind="stable")] = np.arange(1, len(entries) + 1)
    return places.tolist()
