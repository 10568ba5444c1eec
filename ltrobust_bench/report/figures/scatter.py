"""Entries as points: robust against clean accuracy, and tail against head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.report.figures.style import (
    MOST,
    OTHERS,
    STYLE,
    Column,
    add_legend,
    bars_in_words,
    cast,
    cut,
    legend_columns,
    looks_of,
    new_figure,
    notes_of,
    wrapped,
)

FRAME = 0.5
"""Entries with less than this share of the best worst-case accuracy lie outside the frame; the figure counts them."""
LETTERS = 28
"""Letters of a label in the legend; two fit beside each other."""
LEGEND_LINE = 0.135
"""Inches of a line of the legend."""


@matplotlib.rc_context(STYLE)
def tradeoff_figure(board: Board, column: Column = "single") -> Figure:
    """Worst-case against clean accuracy, balanced over classes, with the Pareto front of the ranked entries."""
    across, up = ("clean", "balanced"), ("union", "balanced")
    x, y = _percents(board, *across), _percents(board, *up)
    front = Line2D([], [], color="0.35", linewidth=0.8, linestyle="--", label="Pareto front (ranked)")
    figure, axes = _scatter(board, column, across, up, [front])
    best = _front(board, x, y)
    if len(best):
        # From the frame's left side over each of them down to its lower side.
        steps_x = np.concatenate([[axes.get_xlim()[0]], np.repeat(x[best], 2)])
        steps_y = np.concatenate([np.repeat(y[best], 2), [axes.get_ylim()[0]]])
        style = {"color": "0.35", "linewidth": 0.8, "linestyle": "--", "zorder": 1}
        axes.plot(steps_x, steps_y, scalex=False, scaley=False, **style)
    axes.set_xlabel("clean accuracy (%)")
    axes.set_ylabel("worst-case accuracy (%)")
    return figure


@matplotlib.rc_context(STYLE)
def head_tail_figure(board: Board, column: Column = "single") -> Figure:
    """Worst-case accuracy of the tail against that of the head; the board must have at least 3 classes."""
    figure, axes = _scatter(board, column, ("union", "head"), ("union", "tail"), [])
    axes.set_xlabel("worst-case accuracy, head third (%)")
    axes.set_ylabel("worst-case accuracy, tail third (%)")
    return figure


def pareto(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices, by growing ``x``, of the points that no other point equals or exceeds in both and exceeds in one."""
    beaten = [((x >= a) & (y >= b) & ((x > a) | (y > b))).any() for a, b in zip(x, y, strict=True)]
    front = np.flatnonzero(~np.asarray(beaten, dtype=bool))
    return front[np.argsort(x[front], kind="stable")]


def _front(board: Board, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The front of the ranked entries; of all on a board without ranks."""
    ranked = np.flatnonzero([entry.rank is not None for entry in board.entries])
    members = ranked if len(ranked) else np.arange(len(board.entries))
    return members[pareto(x[members], y[members])]


def _percents(board: Board, attack: str, metric: str) -> np.ndarray:
    return np.asarray([float(entry.percent(attack, metric)) for entry in board.entries])


Number = tuple[str, str]
"""Attack and metric."""


def _scatter(board: Board, column: Column, across: Number, up: Number, extra: Sequence[Artist]) -> tuple[Figure, Axes]:
    """The named entries with their looks and error bars, the others grey, and the legend."""
    x, y, robust = (_percents(board, *number) for number in (across, up, ("union", "balanced")))
    named = {entry.label: entry for entry in cast(board, MOST)}
    inside = robust >= FRAME * robust.max(initial=0)
    inside |= [entry.label in named for entry in board.entries]
    notes = notes_of(board, list(named.values()), told_apart=True)
    if not inside.all():
        notes = [*notes, f"{int((~inside).sum())} entries of less than half the best robustness lie outside"]
    notes = [*notes, f"bars: {bars_in_words(list(named.values()))}"]
    looks = {label: look for label, look in looks_of(board).items() if label in named}
    handles = [*_handles(board, looks), *extra]
    columns = legend_columns(handles, column)
    lines = -(-len(handles) // columns) + len(wrapped(notes, column))
    figure = new_figure(column, (2.3 if column == "single" else 3.0) + LEGEND_LINE * lines)
    axes: Axes = figure.subplots()
    for i in reversed(np.flatnonzero(inside).tolist()):
        entry = board.entries[i]
        style = _marker(looks.get(entry.label))
        axes.plot(x[i], y[i], linestyle="none", markeredgecolor="white", markeredgewidth=0.5, **style)
        if entry.label in named:
            reach = {name: np.reshape(entry.bars(*number), (2, 1)) for name, number in (("xerr", across), ("yerr", up))}
            bars: dict[str, Any] = {**reach, "ecolor": style["color"], "elinewidth": 0.6, "fmt": "none"}
            axes.errorbar(x[i], y[i], alpha=0.55, zorder=1.5, **bars)
    for limits, number, values in ((axes.set_xlim, across, x[inside]), (axes.set_ylim, up, y[inside])):
        values = np.concatenate([values, *(_ends(entry, number) for entry in named.values())])
        room = max(0.06 * float(np.ptp(values)), 0.5)
        limits(values.min() - room, min(values.max() + room, 101.0))
    axes.grid(linewidth=0.3, alpha=0.5)
    axes.set_axisbelow(True)
    add_legend(figure, handles, notes, "outside lower center", columns, column)
    return figure, axes


def _ends(entry: Entry, number: Number) -> np.ndarray:
    """Where an entry's error bar ends."""
    below, above = np.nan_to_num(entry.bars(*number))
    return float(entry.percent(*number)) + np.array([-below, above])


def _marker(look: tuple[str, str] | None) -> dict[str, Any]:
    """How an entry is drawn; without a look as one of the others."""
    colour, marker = look or (OTHERS, "o")
    return {"color": colour, "marker": marker, "markersize": 5.5 if look else 3}


def _handles(board: Board, looks: Mapping[str, tuple[str, str]]) -> list[Artist]:
    shown = [entry.label for entry in board.entries if entry.label in looks]
    found: list[Artist] = [
        Line2D([], [], linestyle="none", label=cut(label, LETTERS), **_marker(looks[label])) for label in shown
    ]
    if len(shown) < len(board.entries):
        found.append(Line2D([], [], linestyle="none", label="other entries", **_marker(None)))
    return found
