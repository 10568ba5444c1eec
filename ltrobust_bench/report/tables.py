"""Boards as CSV (same records, same bytes), Markdown and terminal tables. Accuracies are percentages."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrobust_bench.report.aggregate import DECIMALS
from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.report.columns import (
    BOARD,
    COLUMNS,
    GROUP_COLUMNS,
    LEADERBOARD,
    PER_CLASS,
    SHARES,
    Column,
    cells_of,
)
from ltrobust_bench.report.compare import resolution_in_words
from ltrobust_bench.report.values import Cells
from ltrobust_bench.scores.groups import rank_groups, ranks
from ltrobust_bench.scores.intervals import Spread, spreads

if TYPE_CHECKING:
    from rich.table import Table

Cell = str | int | float | None
SPREAD = ("std", "low", "high")


def leaderboard_rows(boards: Iterable[Board]) -> list[dict[str, Any]]:
    """One row per entry with the columns ``columns.LEADERBOARD``, best first; None where there is nothing to say."""
    return [row for board in boards for row in _leaderboard_rows(board, cells_of(board))]


def _leaderboard_rows(board: Board, lines: Iterable[Cells]) -> Iterator[dict[str, Any]]:
    terms = _terms(board)
    for cells in lines:
        filed = {name: cells[name] for name, column in COLUMNS.items() if column.filed}
        yield terms | {name: round(x, DECIMALS) + 0.0 if isinstance(x, float) else x for name, x in filed.items()}


def texts(boards: Iterable[Board]) -> dict[str, str]:
    """Every file of ``FILES``, by name."""
    parts = [_parts(board) for board in boards]
    return {name: file.text(part[name] for part in parts) for name, file in FILES.items()}


def _parts(board: Board) -> dict[str, str]:
    cells = cells_of(board)
    return {name: file.of_board(board, cells) for name, file in FILES.items()}


def leaderboard_csv(boards: Iterable[Board]) -> str:
    """``leaderboard.csv``: one line per entry.

    ``union_tail_of_reference`` is the tail's worst-case accuracy in per cent of what the balanced reference reaches on
    the same classes. Hours are those of training, of one GPU or of one CPU core.
    """
    return FILES["leaderboard.csv"].of(boards)


def groups_csv(boards: Iterable[Board]) -> str:
    """``groups.csv``: one line per entry and attack ('clean', the attacks, 'union'); for each metric mean, standard
    deviation over seeds and 95 % interval (t over seeds; with one seed Wilson, where the metric is a proportion)."""
    return FILES["groups.csv"].of(boards)


def per_class_csv(boards: Iterable[Board]) -> str:
    """``per_class.csv``: one line per entry and class, by training images.

    ``natural_error`` is the share misclassified when clean, ``boundary_error`` the share that is correct when
    clean and broken by some attack. Standard deviations and intervals are made as in ``groups.csv``.
    """
    return FILES["per_class.csv"].of(boards)


def markdown(boards: Iterable[Board]) -> str:
    """All boards as Markdown tables, each under a heading with its terms."""
    return FILES["leaderboard.md"].of(boards)


def _leaderboard_lines(board: Board, cells: Iterable[Cells]) -> str:
    return csv_lines([_cell(row[c]) for c in LEADERBOARD] for row in _leaderboard_rows(board, cells))


def _groups_lines(board: Board, _: Iterable[Cells]) -> str:
    board_text, lines = _start(_terms(board).values()), []
    for entry, rows in zip(board.entries, _with_spread([e.spread for e in board.entries]), strict=True):
        entry_text, seeds = board_text + _start([entry.label]), f"{len(entry.runs)},{entry.interval_kind}"
        for attack, row in zip(entry.rows, rows, strict=True):  # names of attacks need no quotes
            lines.append(f"{entry_text}{attack},{seeds},{_numbers(row)}\n")
    return "".join(lines)


def _per_class_lines(board: Board, _: Iterable[Cells]) -> str:
    board_text, key, auto, lines = _start(_terms(board).values()), board.key, board.autoattack, []
    rank = ranks(key.train_counts)
    group = {int(c): name for name, members in rank_groups(key.train_counts).items() for c in members}
    classes = [
        _start([c, int(rank[c]), group.get(c), key.train_counts[c], key.test_counts[c]]) for c in board.classes.tolist()
    ]
    images = np.asarray(key.test_counts)[board.classes, None]
    shares = np.concatenate([_class_shares(entry, auto) for entry in board.entries])[:, board.classes]
    spread = _with_spread(spreads(shares, [len(entry.runs) for entry in board.entries], images))
    for entry, rows in zip(board.entries, spread, strict=True):
        entry_text = board_text + _start([entry.label, len(entry.runs), entry.interval_kind, auto])
        for start, row in zip(classes, rows, strict=True):
            row.insert(len(SHARES), 100 - row[0])  # natural_error
            lines.append(f"{entry_text}{start}{_numbers(row)}\n")
    return "".join(lines)


def _class_shares(entry: Entry, auto: str | None) -> np.ndarray:
    """``SHARES`` of every class and seed, fractions, shape [S, C, 4]."""
    per_class = entry.metrics.per_class
    clean, union = per_class[:, entry.rows.index("clean")], per_class[:, entry.rows.index("union")]
    autoattack = per_class[:, entry.rows.index(auto)] if auto else np.full_like(clean, np.nan)
    return np.stack([clean, autoattack, union, clean - union], axis=-1)


def _with_spread(entries: Sequence[Spread]) -> list[list[list[float]]]:
    """Of each entry's rows of numbers the means, and behind them ``SPREAD`` of each number, per cent."""
    mean, *around = (np.stack([getattr(e, name) for e in entries]) for name in ("mean", *SPREAD))
    behind = np.stack(around, axis=-1).reshape(*mean.shape[:-1], -1)
    found: list[list[list[float]]] = (100 * np.concatenate([mean, behind], axis=-1)).tolist()
    return found


def _section(board: Board, cells: Sequence[Cells]) -> str:
    header = [_header(board, column) for column in COLUMNS.values() if column.header]
    rows = []
    for line in cells:
        texts = {name: column.shown(line) for name, column in COLUMNS.items() if column.header}
        rows.append([markdown_text(text) if name in WORDS else text for name, text in texts.items()])
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 3) + ["---"], *rows]
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    floor = resolution_in_words(board) if board.status != "smoke" else ""
    return f"\n## {markdown_text(board.title)}\n\n{table}" + (f"\n{floor}\n" if floor else "")


WORDS = ("method", "flags")
"""Columns for people that are not numbers."""


def _header(board: Board, column: Column) -> str:
    """What stands above a column; AutoAttack's stand-in goes by its own name."""
    stands_in = column.name == "autoattack_balanced" and board.autoattack not in ("autoattack", None)
    return str(board.autoattack) if stands_in else column.header


LEGEND = (
    "Percentages, mean over seeds. Worst case: the image withstands every attack of the suite, balanced over classes. "
    "#: at least one more than the number of entries above that are resolved better (exact McNemar test on the seeds "
    "that both have, the largest p-value of them, Holm's correction), worse than the rank of each of these, and never "
    "better than that of the entry above. The data do not tell entries of one rank apart, and not always those of "
    "different ranks: `ltbench report compare` tests two. Interval: 95 %, t over seeds, which leaves out the chance "
    "of the test images (all seeds see the same), or with one seed Wilson within the run (marked w), which leaves out "
    "the spread between seeds. Head/medium/tail (h/m/t): thirds of the classes by training images, equal ones by "
    "label. Gap: head minus tail, worst case; no measure of quality. Cost: images passed forward and backward in "
    "training, and its seconds."
)


@dataclass(frozen=True)
class File:
    """A file of several boards: what each adds stands between a start and an end.

    Attributes:
        of_board: what a board adds, from the board and its :func:`cells_of`.
    """

    start: str
    of_board: Callable[[Board, Sequence[Cells]], str]
    end: str = ""

    def of(self, boards: Iterable[Board]) -> str:
        """The file of some boards."""
        return self.text(self.of_board(board, cells_of(board)) for board in boards)

    def text(self, parts: Iterable[str]) -> str:
        """The file, of what boards add."""
        return "".join([self.start, *parts, self.end])


def terminal_table(board: Board, width: int = 130, most: int | None = None) -> Table:
    """The first ``most`` entries of a board (None: all) for the terminal; below 130 columns groups are whole numbers,
    flags stand below the table, and gap, seeds and cost are left to the files."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = width >= 130
    lines = cells_of(board, most)
    shown = [column for column in COLUMNS.values() if column.header and (wide or not column.wide)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left")
    below = [f"... and {len(board.entries) - len(lines)} more"] if len(lines) < len(board.entries) else []
    table.caption = "\n".join(below if wide else [*below, *_flag_lines(board)]) or None
    for column in shown:
        header = _header(board, column)
        if column.name in WORDS:
            words = (word for cells in lines for word in column.shown(cells, decimals=0).split())
            longest = max(map(len, words), default=0)
            table.add_column(header, min_width=max(8, min(longest, LONGEST)), overflow="fold")
        else:
            header = header.replace(" ", "\n").replace("AutoAttack", "Auto\nAttack")
            table.add_column(Text(header), justify="right", no_wrap=True)
    for cells in lines:
        table.add_row(*(Text(column.shown(cells, decimals=1 if wide else 0)) for column in shown))
    return table


def shown_rows(board: Board) -> tuple[list[str], list[list[str]]]:
    """What a wide terminal shows of a board, as text: headers, and a row for each entry."""
    shown = [column for column in COLUMNS.values() if column.header]
    return [_header(board, column) for column in shown], [[c.shown(cells) for c in shown] for cells in cells_of(board)]


def _flag_lines(board: Board) -> list[str]:
    """One line per flag, with the entries that have it."""
    flagged: dict[str, list[str]] = {}
    for entry in board.entries:
        for flag in entry.flags:
            flagged.setdefault(flag, []).append(entry.label)
    return [
        f"{flag}: {', '.join(labels) if len(labels) <= NAMED else f'{len(labels)} entries'}"
        for flag, labels in flagged.items()
    ]


LONGEST = 30
"""Letters of a word that is not broken."""
NAMED = 8
"""Entries that a line about a flag names."""


def _terms(board: Board) -> dict[str, str]:
    return {name: term.value(board) for name, term in BOARD.items()}


def csv_lines(rows: Iterable[Iterable[Cell]]) -> str:
    """Lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _start(cells: Iterable[Cell]) -> str:
    """Cells of CSV that others follow: what many lines share is written once."""
    return csv_lines([[*cells, ""]])[:-1]


def _numbers(values: Sequence[float]) -> str:
    """Cells of CSV, ``DECIMALS`` places; empty where there is no number."""
    text = ",".join([f"%.{DECIMALS}f"] * len(values)) % tuple(values)
    return text.replace("nan", "").replace(f"{-0.0:.{DECIMALS}f}", f"{0.0:.{DECIMALS}f}")


def _cell(value: Cell) -> Cell:
    return f"{value:.{DECIMALS}f}" if isinstance(value, float) else plain_cell(value)


def plain_cell(value: Any) -> Any:
    """A cell of CSV; text that a spreadsheet would take for a formula gets an apostrophe, as a person types it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def markdown_text(text: str) -> str:
    """``text`` in a Markdown table: a name can be no markup, link or cell of its own."""
    return re.sub(r"[\\|<`*]|\](?=\()", r"\\\g<0>", text.replace("\n", " "))


FILES = {
    "leaderboard.csv": File(csv_lines([LEADERBOARD]), _leaderboard_lines),
    "groups.csv": File(csv_lines([GROUP_COLUMNS]), _groups_lines),
    "per_class.csv": File(csv_lines([PER_CLASS]), _per_class_lines),
    "leaderboard.md": File("# Leaderboard\n", _section, f"\n{LEGEND}\n"),
}
"""What is written of all boards."""
