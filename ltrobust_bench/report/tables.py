"""Boards as CSV (same records, same bytes), Markdown and terminal tables. Accuracies are percentages."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean as mean
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrobust_bench.numbers import number
from ltrobust_bench.report.aggregate import DECIMALS
from ltrobust_bench.report.board import METRICS, Board, Entry
from ltrobust_bench.scores.groups import rank_groups, ranks
from ltrobust_bench.scores.intervals import Spread, spreads

if TYPE_CHECKING:
    from rich.table import Table

Cell = str | int | float | None
Cells = dict[str, Any]
"""What an entry's row tells, by column."""

BOARD = [
    *["board", "protocol", "protocol_digest", "protocol_status"],
    *["dataset", "imbalance_ratio", "profile", "model", "track", "scope"],
]
LEADERBOARD = [
    *BOARD,
    *["rank", "method", "union_balanced", "autoattack_kind", "autoattack_balanced"],
    *["union_tail", "union_worst_tenth", "clean_balanced"],
    *["clean_head", "clean_medium", "clean_tail", "union_head", "union_medium", "union_head_tail_gap"],
    *["union_tail_of_reference", "seeds", "interval_low", "interval_high", "interval_kind"],
    *["union_balanced_std", "autoattack_balanced_std", "union_tail_std", "clean_balanced_std"],
    *["training_forwards", "training_backwards", "training_seconds", "gpu_hours", "cpu_hours", "device"],
    *["optimizer_steps", "training_epsilon", "trials", "verification", "flags", "records"],
]
SPREAD = ["std", "low", "high"]
GROUPS = [
    *BOARD,
    *["method", "attack", "seeds", "interval_kind"],
    *METRICS,
    *(f"{metric}_{what}" for metric in METRICS for what in SPREAD),
]
SHARES = ["clean", "autoattack", "union", "boundary_error"]
PER_CLASS = [
    *BOARD,
    *["method", "seeds", "interval_kind", "autoattack_kind"],
    *["class", "rank", "group", "train_images", "test_images"],
    *[*SHARES, "natural_error"],
    *(f"{share}_{what}" for share in SHARES for what in SPREAD),
]


def leaderboard_rows(boards: Iterable[Board]) -> list[dict[str, Any]]:
    """One row per entry with the columns ``LEADERBOARD``, best first; None where there is nothing to say."""
    return [row for board in boards for row in _leaderboard_rows(board, entries_cells(board))]


def _leaderboard_rows(board: Board, cells: Iterable[Cells]) -> Iterator[dict[str, Any]]:
    terms = _board_cells(board)
    for entry, own in zip(board.entries, cells, strict=True):
        rounded = {name: round(x, DECIMALS) + 0.0 if isinstance(x, float) else x for name, x in own.items()}
        yield {**terms, **rounded, "records": " ".join(record.id for record in entry.runs)}


def texts(boards: Iterable[Board]) -> dict[str, str]:
    """Every file of ``FILES``, by name."""
    parts = [_parts(board) for board in boards]
    return {name: file.text(part[name] for part in parts) for name, file in FILES.items()}


def _parts(board: Board) -> dict[str, str]:
    cells = entries_cells(board)
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
    return _lines([_cell(row[c]) for c in LEADERBOARD] for row in _leaderboard_rows(board, cells))


def _groups_lines(board: Board, _: Iterable[Cells]) -> str:
    board_text, lines = _start(_board_cells(board).values()), []
    for entry, rows in zip(board.entries, _with_spread([e.spread for e in board.entries]), strict=True):
        entry_text, seeds = board_text + _start([entry.label]), f"{len(entry.runs)},{entry.interval_kind}"
        for attack, row in zip(entry.rows, rows, strict=True):  # names of attacks need no quotes
            lines.append(f"{entry_text}{attack},{seeds},{_numbers(row)}\n")
    return "".join(lines)


def _per_class_lines(board: Board, _: Iterable[Cells]) -> str:
    board_text, key, auto, lines = _start(_board_cells(board).values()), board.key, board.autoattack, []
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
    header, rows = _readable(board, cells)
    for row in rows:
        for column in (header.index("Method"), header.index("Flags")):  # the others are numbers
            row[column] = markdown_text(row[column])
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 3) + ["---"], *rows]
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    return f"\n## {markdown_text(board.title)}\n\n{table}"


LEGEND = (
    "Percentages, mean over seeds. Worst case: the image withstands every attack of the suite, balanced over "
    "classes. #: one more than the number of entries above that are resolved better (exact McNemar test per seed "
    "pair, Holm's correction); what the data cannot tell apart shares a rank. Interval: 95 %, t over seeds, or with "
    "one seed Wilson within the run (marked w), which leaves out the spread between seeds. Head/medium/tail "
    "(h/m/t): thirds of the classes by training images. Gap: head minus tail, worst case; no measure of "
    "quality. Cost: images passed forward and backward in training, and its seconds."
)


@dataclass(frozen=True)
class File:
    """A file of several boards: what each adds stands between a start and an end.

    Attributes:
        of_board: what a board adds, from the board and its :func:`entries_cells`.
    """

    start: str
    of_board: Callable[[Board, Sequence[Cells]], str]
    end: str = ""

    def of(self, boards: Iterable[Board]) -> str:
        """The file of some boards."""
        return self.text(self.of_board(board, entries_cells(board)) for board in boards)

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
    header, rows = _readable(board, entries_cells(board, most), group_decimals=1 if wide else 0)
    shown = [i for i, name in enumerate(header) if wide or name not in WIDE_ONLY]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left")
    below = [f"... and {len(board.entries) - len(rows)} more"] if len(rows) < len(board.entries) else []
    table.caption = "\n".join(below if wide else [*below, *_flag_lines(board)]) or None
    for i in shown:
        if header[i] in ("Method", "Flags"):
            table.add_column(header[i], min_width=8, overflow="fold")
        else:
            name = header[i].replace(" ", "\n").replace("AutoAttack", "Auto\nAttack")
            table.add_column(Text(name), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(row[i]) for i in shown))
    return table


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


NAMED = 8
"""Entries that a line about a flag names."""
WIDE_ONLY = ("Tail", "Gap", "Seeds", "Cost", "Flags")


def _readable(board: Board, cells: Sequence[Cells], group_decimals: int = 1) -> tuple[list[str], list[list[str]]]:
    """Header and rows for people, of the first entries: one decimal, groups in one cell."""
    auto = board.autoattack if board.autoattack not in ("autoattack", None) else "AutoAttack"

    def groups(row: dict[str, Any], attack: str) -> str:
        values = (row[f"{attack}_{g}"] for g in ("head", "medium", "tail"))
        return "/".join("-" if v is None else f"{v:.{group_decimals}f}" for v in values)

    header = ["#", "Method", "Worst case", "Interval", auto, "Tail", "Worst 10%", "Clean", "Clean h/m/t"]
    header += ["Worst case h/m/t", "Gap", "Seeds", "Cost", "Flags"]
    rows = []
    for e, row in zip(board.entries[: len(cells)], cells, strict=True):
        low, high = (_short(100 * bound) for bound in e.interval)
        passes = row["training_forwards"] + row["training_backwards"]
        rows.append(
            [
                str(e.rank or "-"),
                e.label,
                _short(row["union_balanced"]),
                f"{low}-{high}" + (" w" if e.interval_kind == "wilson" else ""),
                _short(row["autoattack_balanced"]),
                _short(row["union_tail"]),
                _short(row["union_worst_tenth"]),
                _short(row["clean_balanced"]),
                groups(row, "clean"),
                groups(row, "union"),
                _short(row["union_head_tail_gap"]),
                str(len(e.runs)),
                f"{passes / 1e6:.3g} M, {row['training_seconds']:.0f} s",
                ", ".join(e.flags),
            ]
        )
    return header, rows


def _board_cells(board: Board) -> dict[str, Any]:
    k = board.key
    scope = "reduced" if k.reduced else "full"
    values = (board.slug, k.protocol, k.protocol_digest[:12], board.status, k.dataset)
    return dict(zip(BOARD, (*values, f"{k.imbalance_ratio:g}", k.profile, k.model, k.track, scope), strict=True))


ATTACKS, SHOWN = ("clean", "union"), ("balanced", "head", "medium", "tail", "worst_tenth", "head_tail_gap")
"""What an entry's line tells of its metrics."""


def entries_cells(board: Board, most: int | None = None) -> list[Cells]:
    """What rows tell of the first entries, percentages not rounded yet: rounded twice, 59.346 would be 59.4."""
    return [_entry_cells(board, entry) for entry in board.entries[:most]]


def _entry_cells(board: Board, entry: Entry) -> Cells:
    training = [record.cost.training for record in entry.runs]
    run, auto = entry.runs[0].run, board.autoattack
    percent = dict(zip(entry.rows, (100 * entry.spread.mean).tolist(), strict=True))
    std = dict(zip(entry.rows, (100 * entry.spread.std).tolist(), strict=True))
    balanced, tail = METRICS.index("balanced"), METRICS.index("tail")
    low, high = entry.interval
    numbers = {
        **{f"{attack}_{name}": percent[attack][METRICS.index(name)] for attack in ATTACKS for name in SHOWN},
        "union_balanced_std": std["union"][balanced],
        "autoattack_balanced_std": std[auto][balanced] if auto else None,
        "union_tail_std": std["union"][tail],
        "clean_balanced_std": std["clean"][balanced],
        "union_tail_of_reference": _of_reference(board, entry),
        "autoattack_balanced": percent[auto][balanced] if auto else None,
        "interval_low": 100 * low,
        "interval_high": 100 * high,
        "training_seconds": mean(work.seconds for work in training),
    }
    return {
        **{name: None if x is None or x != x else x for name, x in numbers.items()},
        **_hours(entry),
        "rank": entry.rank,
        "method": entry.label,
        "autoattack_kind": auto,
        "seeds": len(entry.runs),
        "interval_kind": entry.interval_kind,
        "training_forwards": round(mean(work.forwards for work in training)),
        "training_backwards": round(mean(work.backwards for work in training)),
        "optimizer_steps": round(mean(record.cost.optimizer_steps for record in entry.runs)),
        "training_epsilon": f"{number(run.recipe.attack.epsilon, run.epsilon):.6g}",
        "trials": max(record.status.trials for record in entry.runs),
        "verification": entry.level,
        "flags": "; ".join(entry.flags),
    }


def _of_reference(board: Board, entry: Entry) -> float | None:
    """The tail's worst-case accuracy in per cent of the balanced reference's on the same classes."""
    if board.reference is None or not (groups := rank_groups(board.key.train_counts)):
        return None
    theirs = float(board.reference.percent("union", "per_class")[groups["tail"]].mean())
    return 100 * float(entry.percent("union", "tail")) / theirs if theirs else None


def _hours(entry: Entry) -> dict[str, str | None]:
    """Device and hours of training, mean over the runs on such a device; CPU hours are those of one core."""
    spent: dict[str, list[float]] = {"gpu_hours": [], "cpu_hours": []}
    for record in entry.runs:
        where, hours = record.environment, record.cost.training.seconds / 3600
        if "cpu" in where.device.lower():
            spent["cpu_hours"].append(hours * where.threads)
        else:
            spent["gpu_hours"].append(hours)
    devices = "; ".join(sorted({record.environment.device for record in entry.runs}))
    return {"device": devices, **{name: f"{mean(hours):.4g}" if hours else None for name, hours in spent.items()}}


def _short(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 1) + 0.0:.1f}"


def _lines(rows: Iterable[Iterable[Cell]]) -> str:
    """Lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _start(cells: Iterable[Cell]) -> str:
    """Cells of CSV that others follow: what many lines share is written once."""
    return _lines([[*cells, ""]])[:-1]


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
    "leaderboard.csv": File(_lines([LEADERBOARD]), _leaderboard_lines),
    "groups.csv": File(_lines([GROUPS]), _groups_lines),
    "per_class.csv": File(_lines([PER_CLASS]), _per_class_lines),
    "leaderboard.md": File("# Leaderboard\n", _section, f"\n{LEGEND}\n"),
}
"""What is written of all boards."""
