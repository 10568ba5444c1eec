"""What all figures share: sizes, colours, legends, files.

The same figure gives the same bytes in every format: no dates, fixed identifiers, matplotlib's own font.
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

from ltrobust_bench.files import atomic_path
from ltrobust_bench.report.board import ALWAYS, Board, Entry
from ltrobust_bench.scores.groups import rank_groups

Column = Literal["single", "double"]
WIDTHS = {"single": 3.35, "double": 7.0}
"""Inches; the usual widths of one and of both columns of a two-column paper."""
LINE = {"single": 70, "double": 150}
"""Letters of 6 points that fit the width."""
FEW = 20
"""Classes up to which a bar is wide enough for a hatch and a range."""
MOST = 12
"""Entries told apart by colour and mark where nobody chose any; a figure of a longer board says so."""
LONG = 46
"""Letters of a label that fit one column."""
# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), without yellow, which is lost on white paper.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "h", ">", "*")
CLEAN, ROBUST = "#56B4E9", "#0072B2"
GROUP_COLOURS = {"head": "#0072B2", "medium": "#E69F00", "tail": "#D55E00"}
OTHERS = "0.72"
"""Grey of entries that have no colour of their own."""
_OWN = (
    "backend",
    "figure.max_open_warning",
    "interactive",
    "savefig.directory",
    "timezone",
    "toolbar",
    "webagg",
    "tk.",
)
"""What of a reader's matplotlibrc is about windows, and stays."""
STYLE = {
    # Nothing else of it counts: LaTeX for every text, other sizes, colours of a lecture.
    **{name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith(_OWN)},
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "text.parse_math": False,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "ltrobust-bench",
}
METADATA: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as ``stem`` with endings .png, .svg and .pdf, atomically; the paths written."""
    written = []
    with matplotlib.rc_context(STYLE):
        for ending, metadata in METADATA.items():
            path = stem.with_name(f"{stem.name}.{ending}")
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=ending, dpi=300, metadata=metadata)
            written.append(path)
            # Everything has its place now; with an engine every format would be drawn twice.
            figure.set_layout_engine(None)
    return written


def new_figure(column: Column, height: float) -> Figure:
    """An empty figure of a column's width; ``height`` in inches."""
    figure = Figure(figsize=(WIDTHS[column], height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def look(i: int) -> tuple[str, str]:
    """Colour and mark of the i-th entry; no two of the first 84 look alike."""
    return COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]


def looks_of(board: Board) -> dict[str, tuple[str, str]]:
    """Colour and mark of each entry by its label, from its place on the whole board: the same in every figure."""
    return {entry.label: look(i) for i, entry in enumerate((board.chosen_from or board).entries)}


def cast(board: Board, most: int) -> list[Entry]:
    """The entries that a figure names: all that somebody chose, else the first ones, and what every paper compares
    with (``ALWAYS``) in any case."""
    if board.chosen_from is not None or len(board.entries) <= most:
        return board.entries
    always = [entry for entry in board.entries if entry.label in ALWAYS][:most]
    others = [entry for entry in board.entries if entry.label not in ALWAYS][: most - len(always)]
    kept = {entry.label for entry in (*always, *others)}
    return [entry for entry in board.entries if entry.label in kept]


def cut(label: str, most: int = LONG) -> str:
    """``label`` at a length that fits; entries that differ in their last option stay apart."""
    return label if len(label) <= most else f"{label[: most // 2]}…{label[-(most // 2 - 1) :]}"


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


def notes_of(board: Board, shown: Sequence[Entry], told_apart: bool = False) -> list[str]:
    """What a reader of a figure of a board must be warned of, and which of its entries are shown, or told apart."""
    if len(shown) >= len(board.entries):
        return board.warnings
    accuracies = [float(entry.percent("union", "balanced")) for entry in board.entries]
    which = "best" if accuracies == sorted(accuracies, reverse=True) else "first"
    first = sum(own is entry for own, entry in zip(shown, board.entries, strict=False))
    beside = ", and " + " and ".join(entry.label for entry in shown[first:]) if shown[first:] else ""
    return [*board.warnings, f"{which} {first} of {len(board.entries)} entries{beside}{' named' if told_apart else ''}"]


def bars_in_words(entries: Sequence[Entry]) -> str:
    """What :meth:`~ltrobust_bench.report.board.Entry.bars` are, of some entries."""
    counts = {len(entry.runs) > 1 for entry in entries}
    words = {True: "± standard deviation over seeds", False: "95 % interval of the test images"}
    return words[counts.pop()] if len(counts) == 1 else f"{words[True]}; of one seed: {words[False]}"


def add_legend(
    figure: Figure, handles: Sequence[Artist], notes: Sequence[str], loc: str, ncols: int, column: Column
) -> None:
    """The figure's legend; above its lines, the notes."""
    title = "\n".join(wrapped(notes, column)) or None
    legend = figure.legend(handles=handles, loc=loc, ncols=ncols, title=title, title_fontsize=6)
    legend.get_title().set(color="0.35", multialignment="center")


def wrapped(notes: Sequence[str], column: Column) -> list[str]:
    """The lines of a legend's title."""
    return textwrap.wrap("; ".join(notes), LINE[column])


def legend_columns(handles: Sequence[Artist], column: Column) -> int:
    """Columns that a legend has room for."""
    letters = max(len(str(handle.get_label())) for handle in handles) + 7
    return max(1, min(len(handles), LINE[column] // letters))
