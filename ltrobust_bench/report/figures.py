"""Figures of a board, sized for a paper's columns, readable in colour, in grey and by the colour-blind.

The same board gives the same bytes in every format: no dates, fixed identifiers, matplotlib's own font.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ltrobust_bench.evaluation.curves import Curve
from ltrobust_bench.evaluation.groups import rank_groups
from ltrobust_bench.files import atomic_path
from ltrobust_bench.report.board import Board, Entry

Column = Literal["single", "double"]
WIDTHS = {"single": 3.35, "double": 7.0}
"""Inches; the usual widths of one and of both columns of a two-column paper."""
FEW = 20
"""Classes up to which a bar is wide enough for a hatch and a range."""
MOST = 12
"""Entries drawn, the best ones; a figure of a longer board says so."""
SHORT, LONG = 20, 46
"""Letters of a label that fit twice, and once, beside each other in one column."""
# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), without yellow, which is lost on white paper.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "h", ">", "*")
CLEAN, ROBUST = "#56B4E9", "#0072B2"
GROUP_COLOURS = {"head": "#0072B2", "medium": "#E69F00", "tail": "#D55E00"}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "text.parse_math": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "ltrobust-bench",
}
METADATA: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def draw(board: Board, folder: Path) -> list[Path]:
    """Write ``per_class`` (double column) and ``tradeoff`` (single column) into a folder, in every format."""
    return save(per_class_figure(board), folder / "per_class") + save(tradeoff_figure(board), folder / "tradeoff")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as ``stem`` with endings .png, .svg and .pdf, atomically; the paths written."""
    written = []
    with matplotlib.rc_context(STYLE):
        for ending, metadata in METADATA.items():
            path = stem.with_name(f"{stem.name}.{ending}")
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=ending, dpi=300, metadata=metadata)
            written.append(path)
    return written


@matplotlib.rc_context(STYLE)
def per_class_figure(board: Board, column: Column = "double") -> Figure:
    """Clean and worst-case accuracy of every class, largest class first; one panel per entry."""
    entries = board.entries[:MOST]
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
    _legend(figure, board, handles, "outside upper center", len(handles) if column == "double" else 1, column)
    return figure


@matplotlib.rc_context(STYLE)
def tradeoff_figure(board: Board, column: Column = "single") -> Figure:
    """Worst-case against clean accuracy: each entry over all classes, and its head and tail third."""
    entries = board.entries[:MOST]
    names = [cut(entry.label) for entry in entries]
    per_line = (1 if column == "single" else 2) * (2 if max(map(len, names)) <= SHORT else 1)
    lines = -(-len(entries) // per_line) + 1
    figure = new_figure(column, WIDTHS[column] * (0.85 if column == "single" else 0.5) + 0.16 * lines)
    axes = figure.subplots()
    groups = ["head", "balanced", "tail"] if rank_groups(board.key.train_counts) else ["balanced"]
    handles: list[Artist] = []
    for i, entry in enumerate(entries):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        x = [float(entry.percent("clean", g)) for g in groups]
        y = [float(entry.percent("union", g)) for g in groups]
        axes.plot(x, y, color=colour, linewidth=0.6, zorder=1)
        for g, at in zip(groups, zip(x, y, strict=True), strict=True):
            size, face = {"head": (3.2, colour), "balanced": (6.5, colour), "tail": (3.2, "white")}[g]
            edge = "white" if g == "balanced" else colour
            axes.plot(*at, marker, markersize=size, markerfacecolor=face, markeredgecolor=edge, markeredgewidth=0.6)
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=0.6, label=names[i]))
    axes.set_xlabel("clean accuracy (%)")
    axes.set_ylabel("robust accuracy, worst case (%)")
    axes.margins(0.08)
    axes.grid(linewidth=0.3, alpha=0.5)
    if len(groups) > 1:
        grey: dict[str, Any] = {"color": "0.3", "marker": "o", "linestyle": "none"}
        key = [
            Line2D([], [], markersize=3.2, label="head third", **grey),
            Line2D([], [], markersize=6, label="all classes", **grey),
            Line2D([], [], markersize=3.2, markerfacecolor="white", label="tail third", **grey),
        ]
        axes.legend(handles=key, loc="best", fontsize=6)
    _legend(figure, board, handles, "outside lower center", min(per_line, len(handles)), column)
    return figure


@matplotlib.rc_context(STYLE)
def curve_figure(curve: Curve, column: Column = "single") -> Figure:
    """Accuracy along a curve: over all classes, and of the head, medium and tail third."""
    figure = new_figure(column, WIDTHS[column] * (0.75 if column == "single" else 0.45))
    axes = figure.subplots()
    for (group, colour), marker in zip({"balanced": "#000000", **GROUP_COLOURS}.items(), "os^D", strict=True):
        values = [100 * float(getattr(point, group)) for point in curve.points]
        label = "all classes" if group == "balanced" else group
        if not np.isnan(values).any():
            axes.plot(curve.x, values, color=colour, marker=marker, markersize=3, linewidth=1.0, label=label)
    if curve.kind == "steps":
        axes.set_xscale("log")
        axes.set_xticks(list(curve.x), [f"{x:g}" for x in curve.x])
        axes.minorticks_off()
    else:
        axes.axvline(curve.epsilon, color="0.5", linewidth=0.6, linestyle=":")
        axes.annotate(
            "protocol", (curve.epsilon, 100), color="0.4", fontsize=6, xytext=(2, 0), textcoords="offset points"
        )
    axes.set_xlabel({"eps": "radius (pixel scale 0 to 1), PGD-20", "steps": "PGD steps"}[curve.kind])
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(-2, 104)
    axes.grid(linewidth=0.3, alpha=0.5)
    axes.legend(fontsize=6)
    return figure


def new_figure(column: Column, height: float) -> Figure:
    """An empty figure of a column's width; ``height`` in inches."""
    figure = Figure(figsize=(WIDTHS[column], height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def mark_thirds(panel: Axes, counts: Sequence[int] | np.ndarray, height: float | None, **text: Any) -> None:
    """Lines between head, medium and tail on an axis of ranks, and their names at a height, if one is given."""
    start = 0
    for name, members in rank_groups(counts).items():
        if start:
            panel.axvline(start - 0.5, color="0.4", linewidth=0.6, linestyle=":")
        if height is not None:
            centre = start + (len(members) - 1) / 2
            panel.text(centre, height, name, ha="center", va="bottom", color="0.3", fontsize=6, **text)
        start += len(members)


def _legend(figure: Figure, board: Board, handles: list[Artist], loc: str, ncols: int, column: Column) -> None:
    """The figure's legend; above its lines, what a reader must be warned of."""
    notes = list(board.warnings)
    if len(board.entries) > MOST:
        notes.append(f"best {MOST} of {len(board.entries)} entries")
    title = textwrap.fill("; ".join(notes), 60 if column == "single" else 130) or None
    legend = figure.legend(handles=handles, loc=loc, ncols=ncols, title=title, title_fontsize=6)
    legend.get_title().set(color="0.35", multialignment="center")


def _hatch(board: Board) -> str | None:
    return "/////" if len(board.classes) <= FEW else None


def cut(label: str, most: int = LONG) -> str:
    """``label`` at a length that fits one column; entries that differ in their last option stay apart."""
    return label if len(label) <= most else f"{label[: most // 2]}…{label[-(most // 2 - 1) :]}"


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
    if len(entry.label) <= 1.5 * SHORT:
        means = [float(entry.percent(attack, "balanced")) for attack in ("clean", "union")]
        panel.set_title("clean {:.1f}, robust {:.1f}".format(*means), loc="right", pad=4, fontsize=6, color="0.3")
