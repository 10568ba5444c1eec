"""Every kind of figure: what it needs, and drawing all that records and run folders allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ltrobust_bench.errors import UsageError
from ltrobust_bench.report import find_board
from ltrobust_bench.report.aggregate import entries_called
from ltrobust_bench.report.board import Board
from ltrobust_bench.report.figures.bars import groups_figure, per_class_figure
from ltrobust_bench.report.figures.dumbbell import published_figure
from ltrobust_bench.report.figures.heat import heat_map_figure
from ltrobust_bench.report.figures.positions import ranks_figure, seeds_figure
from ltrobust_bench.report.figures.runs import curves_figure, training_figure
from ltrobust_bench.report.figures.scatter import head_tail_figure, tradeoff_figure
from ltrobust_bench.report.figures.style import MOST, Column, looks_of, save
from ltrobust_bench.report.published import PublishedNumber, beside, read_published
from ltrobust_bench.report.series import SERIES, SeriesKind, read_series
from ltrobust_bench.scores.groups import rank_groups

BOARD_FIGURES: dict[str, Callable[..., Figure]] = {
    "per_class": per_class_figure,
    "heat_map": heat_map_figure,
    "groups": groups_figure,
    "tradeoff": tradeoff_figure,
    "head_tail": head_tail_figure,
    "seeds": seeds_figure,
    "ranks": ranks_figure,
}
PAGES = {"per_class": {"single": MOST, "double": MOST}, "groups": {"single": MOST // 2, "double": MOST}}
"""Entries on a page, of kinds that cannot have as many rows as entries: those that were chosen go on, page by page."""
KINDS = (*BOARD_FIGURES, "published", *SERIES)
"""Names of the kinds, which are those of the files."""


@dataclass
class Drawn:
    """What :func:`draw_kinds` did.

    Attributes:
        figures: how each is made, under its path without an ending.
        left_out: kinds that were not drawn, with the reason.
        problems: what was wrong with files on the way.
        notes: what looks odd on the board.
    """

    figures: dict[Path, Callable[[], Figure]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def written(self) -> list[Path]:
        """Paths of the figures."""
        return list(self.figures)


def draw_kinds(
    kinds: Sequence[str],
    results_dir: Path,
    runs_dir: Path,
    *,
    records: Sequence[Path] = (),
    output: Path | None = None,
    names: Sequence[str] = (),
    column: Column | None = None,
    **board_terms: Any,
) -> Drawn:
    """Draw figures of a board, and of the runs under its terms.

    Args:
        kinds: of ``KINDS``; none: all that can be drawn.
        results_dir: its folders ``records`` and ``published`` are read.
        runs_dir: run folders, with curves and training histories.
        records: folders or files of records that are read instead of ``records``.
        output: folder to write to; default: ``figures/<board>`` in ``results_dir``.
        names: labels of entries, in the order to be shown; none: all, best first.
        column: width; default: what suits the kind.
        board_terms: see :func:`~ltrobust_bench.report.find_board`.

    Raises:
        UsageError: if a kind that was asked for cannot be drawn.
        UnknownNameError: for an entry that the board does not have.
    """
    drawn = Drawn()
    width: dict[str, Any] = {} if column is None else {"column": column}
    asked = list(kinds) or list(KINDS)
    of_board = [kind for kind in asked if kind not in SERIES]
    looks: dict[str, tuple[str, str]] = {}
    try:
        board, problems = find_board(records or (results_dir / "records",), **board_terms)
    except UsageError as error:
        drawn.left_out |= dict.fromkeys(of_board, str(error))
    else:
        looks = looks_of(board)
        if of_board:
            drawn.problems, drawn.notes = problems, board.messages
            shown = board.only(entries_called(board, names, "clean")) if names else board
            folder = output or results_dir / "figures" / board.slug
            for kind in of_board:
                _draw_of_board(drawn, kind, shown, results_dir, folder, width)
    for kind in SERIES:
        if kind in asked:
            all_of_them = {"most": None} if names else {}
            options = {**width, **all_of_them, "looks": looks}
            _draw_of_runs(drawn, kind, runs_dir, results_dir, output, names, options, board_terms)
    for stem, make in drawn.figures.items():
        save(make(), stem)
    if kinds and drawn.left_out:
        raise UsageError("; ".join(f"{kind}: {reason}" for kind, reason in drawn.left_out.items()))
    return drawn


def _draw_of_runs(
    drawn: Drawn,
    kind: SeriesKind,
    runs_dir: Path,
    results_dir: Path,
    output: Path | None,
    names: Sequence[str],
    options: dict[str, Any],
    board_terms: dict[str, Any],
) -> None:
    groups, problems = read_series(kind, runs_dir, **board_terms)
    drawn.problems += problems
    if names:
        groups = [chosen for group in groups if (chosen := group.only(names)).series]
    for group in groups:
        if kind == "training":
            make = partial(training_figure, group, **options)
        else:
            make = partial(curves_figure, group, kind, **options)
        # Runs under different terms have a figure each, which must not overwrite one another.
        folder = output if output and len(groups) == 1 else (output or results_dir / "figures") / group.slug
        drawn.figures[folder / kind] = make
    if not groups:
        how = "ltbench train" if kind == "training" else f"ltbench eval RUN --curve {kind}"
        which = f" of {', '.join(names)}" if names else ""
        drawn.left_out[kind] = f"no run{which} in {runs_dir} has it; `{how}` makes it"


def _draw_of_board(
    drawn: Drawn, kind: str, board: Board, results_dir: Path, folder: Path, width: dict[str, Any]
) -> None:
    if kind == "published":
        pairs, reason = _published_pairs(board, results_dir)
        if pairs:
            drawn.figures[folder / kind] = partial(published_figure, board, pairs, **width)
    else:
        reason = _missing(kind, board)
        if not reason:
            pages = _pages(kind, board, width.get("column", "double"))
            for number, page in enumerate(pages, 1):
                stem = kind if len(pages) == 1 else f"{kind}-{number}"
                drawn.figures[folder / stem] = partial(BOARD_FIGURES[kind], page, **width)
    if reason:
        drawn.left_out[kind] = reason


def _pages(kind: str, board: Board, column: Column) -> list[Board]:
    """What the figures of a kind show: the board, or as much of the chosen entries as has room on a page each."""
    if board.chosen_from is None or kind not in PAGES:
        return [board]
    size = PAGES[kind][column]
    return [board.only(board.entries[i : i + size]) for i in range(0, len(board.entries), size)]


def _missing(kind: str, board: Board) -> str:
    """Why a figure of a board cannot be drawn; empty if it can."""
    if kind in ("groups", "head_tail", "ranks") and not rank_groups(board.key.train_counts):
        return "fewer than 3 classes have no thirds"
    if kind == "seeds" and all(len(entry.runs) == 1 for entry in board.entries):
        return "no entry has more than one seed"
    if kind == "ranks":
        if board.autoattack is None:
            return "the suite has no AutoAttack"
        if sum(entry.rank is not None for entry in board.entries) < 2:
            return "fewer than two entries have a rank"
    return ""


def _published_pairs(board: Board, results_dir: Path) -> tuple[list[tuple[PublishedNumber, float]], str]:
    """Published numbers and ours on this board, or why there are none."""
    shown = {entry.label for entry in board.entries}
    try:
        numbers, _ = read_published(results_dir / "published")
    except UsageError as error:
        return [], str(error)
    numbers = [n for n in numbers if n.dataset == board.key.dataset and n.method in shown and not n.of_one_class]
    ours, _ = beside(numbers, results_dir / "records")
    pairs = [(n, own.value) for n, own in zip(numbers, ours, strict=True) if own and own.board.key == board.key]
    return pairs, "" if pairs else "no published number has one of ours beside it on this board"
