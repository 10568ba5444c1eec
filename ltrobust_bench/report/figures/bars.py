"""Bars: every class of an entry, and the thirds of the classes of several entries."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.report.figures.style import (
    CLEAN,
    FEW,
    GROUP_COLOURS,
    MOST,
    ROBUST,
    STYLE,
    Column,
    add_legend,
    bars_in_words,
    cast,
    cut,
    mark_thirds,
    new_figure,
    notes_of,
)
from ltrobust_bench.scores.groups import rank_groups

TITLED = 30
"""Letters of a label that leave room for two means beside it."""
HATCHES = {"head": None, "medium": "/////", "tail": "....."}


@matplotlib.rc_context(STYLE)
def per_class_figure(board: Board, column: Column = "double") -> Figure:
    """Clean and worst-case accuracy of every class, largest class first; one panel per entry."""
    entries = cast(board, MOST)
    across = 1 if column == "single" else min(2, len(entries))
    down = -(-len(entries) // across)
    figure = new_figure(column, 0.75 + 1.05 * down)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for i, panel in enumerate(panels.flat):
        if i < len(entries):
            _bars(panel, board, entries[i], named=i < across)
        else:
            panel.set_visible(False)
            panels.flat[i - across].tick_params(labelbottom=True)
    figure.supxlabel("class, and below it its training images", fontsize=7)
    figure.supylabel("accuracy (%)", fontsize=7)
    handles: list[Artist] = [
        Patch(facecolor=CLEAN, edgecolor="white", hatch=_hatch(board), label="clean"),
        Patch(facecolor=ROBUST, label="robust: worst case over the suite"),
    ]
    if any(len(entry.runs) > 1 for entry in entries) and len(board.classes) <= FEW:
        handles.append(Line2D([], [], color="black", linewidth=0.8, label="robust: range over seeds"))
    columns = len(handles) if column == "double" else 1
    add_legend(figure, handles, notes_of(board, entries), "outside upper center", columns, column)
    return figure


@matplotlib.rc_context(STYLE)
def groups_figure(board: Board, column: Column = "double") -> Figure:
    """Clean and worst-case accuracy of head, medium and tail, entry by entry, with error bars.

    The board must have at least 3 classes.
    """
    entries = cast(board, MOST if column == "double" else MOST // 2)
    groups = list(rank_groups(board.key.train_counts))
    figure = new_figure(column, 3.6)
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    at, width = np.arange(len(entries)), 0.8 / len(groups)
    for panel, attack, name in zip(panels, ("clean", "union"), ("clean", "robust: worst case"), strict=True):
        for g, group in enumerate(groups):
            means = [float(entry.percent(attack, group)) for entry in entries]
            reach = np.nan_to_num([entry.bars(attack, group) for entry in entries]).T
            places = at + (g - (len(groups) - 1) / 2) * width
            style = {"color": GROUP_COLOURS[group], "edgecolor": "white", "hatch": HATCHES[group], "linewidth": 0}
            panel.bar(places, means, width * 0.92, **style)
            panel.errorbar(places, means, reach, fmt="none", ecolor="black", elinewidth=0.7)
        panel.set_ylabel(f"{name} (%)")
        panel.set_ylim(0, 104)
        panel.grid(axis="y", linewidth=0.3, alpha=0.5)
        panel.set_axisbelow(True)
    labels = [cut(entry.label, 34) for entry in entries]
    panels[1].set_xticks(at, labels, rotation=32, ha="right", rotation_mode="anchor")
    panels[1].set_xlim(-0.6, len(entries) - 0.4)
    handles: list[Artist] = [
        Patch(facecolor=GROUP_COLOURS[group], edgecolor="white", hatch=HATCHES[group], label=f"{group} third")
        for group in groups
    ]
    handles.append(Line2D([], [], color="black", linewidth=0.7, label=bars_in_words(entries)))
    columns = len(handles) if column == "double" else 2
    add_legend(figure, handles, notes_of(board, entries), "outside upper center", columns, column)
    return figure


def _hatch(board: Board) -> str | None:
    return "/////" if len(board.classes) <= FEW else None


def _bars(panel: Axes, board: Board, entry: Entry, named: bool) -> None:
    """One entry's panel; ``named``: with the names of the groups."""
    order, counts = board.classes, np.asarray(board.key.train_counts)
    at = np.arange(len(order))
    few = len(order) <= FEW
    clean = entry.percent("clean", "per_class")[order]
    robust = entry.percent("union", "per_class")[order]
    width = 0.8 if few else 1.0
    panel.bar(at, clean, width, color=CLEAN, edgecolor="white", hatch=_hatch(board), linewidth=0)
    panel.bar(at, robust, 0.45 if few else 1.0, color=ROBUST, linewidth=0)
    if len(entry.runs) > 1 and few:
        seeds = entry.per_seed("union", "per_class")[:, order]
        panel.vlines(at, seeds.min(axis=0), seeds.max(axis=0), color="black", linewidth=0.8)
    mark_thirds(panel, counts, 101 if named else None)
    ticks = at[:: -(-len(order) // 10)]
    panel.set_xticks(ticks, [f"{order[i]}\n{counts[order[i]]}" for i in ticks], fontsize=6)
    panel.set_yticks([0, 50, 100])
    panel.set_ylim(0, 114)
    panel.set_xlim(-0.6, len(order) - 0.4)
    panel.set_title(cut(entry.label), loc="left", pad=4)
    if len(entry.label) <= TITLED:
        means = [float(entry.percent(attack, "balanced")) for attack in ("clean", "union")]
        panel.set_title("clean {:.1f}, robust {:.1f}".format(*means), loc="right", pad=4, fontsize=6, color="0.3")
