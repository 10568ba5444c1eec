"""Boards as CSV (same records, same bytes), Markdown and terminal tables. Accuracies are percentages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrobust_bench.evaluation.groups import rank_groups, ranks
from ltrobust_bench.numbers import number
from ltrobust_bench.report.aggregate import DECIMALS, Board, Entry

if TYPE_CHECKING:
    from rich.table import Table

Cell = str | int | float | None

BOARD = [
    *["board", "protocol", "protocol_digest", "protocol_status"],
    *["dataset", "imbalance_ratio", "profile", "model", "track", "scope"],
]
LEADERBOARD = [
    *BOARD,
    *["rank", "method", "union_balanced", "autoattack_kind", "autoattack_balanced"],
    *["union_tail", "union_worst_tenth", "clean_balanced"],
    *["clean_head", "clean_medium", "clean_tail", "union_head", "union_medium", "union_head_tail_gap"],
    *["seeds", "interval_low", "interval_high", "interval_kind"],
    *["training_forwards", "training_backwards", "training_seconds", "optimizer_steps"],
    *["training_epsilon", "trials", "verification", "flags", "records"],
]
METRICS = ["overall", "balanced", "head", "medium", "tail", "worst_class", "worst_tenth", "head_tail_gap"]
GROUPS = [*BOARD, "method", "attack", *METRICS, "seeds"]
PER_CLASS = [
    *BOARD,
    *["method", "class", "rank", "group", "train_images", "test_images"],
    *["clean", "autoattack_kind", "autoattack", "union", "natural_error", "boundary_error", "seeds"],
]


def leaderboard_rows(boards: Iterable[Board]) -> list[dict[str, Any]]:
    """One row per entry with the columns ``LEADERBOARD``, best first; None where there is nothing to say."""
    return [
        {**_board_cells(board), **_entry_cells(board, e), "records": " ".join(record.id for record in e.runs)}
        for board in boards
        for e in board.entries
    ]


def leaderboard_csv(boards: Iterable[Board]) -> str:
    """``leaderboard.csv``: one line per entry."""
    return _csv(LEADERBOARD, ([row[c] for c in LEADERBOARD] for row in leaderboard_rows(boards)))


def groups_csv(boards: Iterable[Board]) -> str:
    """``groups.csv``: one line per entry and attack ('clean', the attacks, 'union')."""
    lines: list[list[Cell]] = []
    for board in boards:
        head = list(_board_cells(board).values())
        for entry in board.entries:
            means = np.stack([entry.means[name] for name in METRICS], axis=1)
            for attack, values in zip(entry.rows, means.tolist(), strict=True):
                lines.append([*head, entry.label, attack, *values, len(entry.runs)])
    return _csv(GROUPS, lines)


def per_class_csv(boards: Iterable[Board]) -> str:
    """``per_class.csv``: one line per entry and class, by training images.

    ``natural_error`` is the share misclassified when clean, ``boundary_error`` the share that is correct when
    clean and broken by some attack.
    """
    lines: list[list[Cell]] = []
    for board in boards:
        head, key, auto = list(_board_cells(board).values()), board.key, board.autoattack
        rank = ranks(key.train_counts)
        group = {int(c): name for name, members in rank_groups(key.train_counts).items() for c in members}
        for entry in board.entries:
            clean = entry.percent("clean", "per_class").tolist()
            union = entry.percent("union", "per_class").tolist()
            autoattack = entry.percent(auto, "per_class").tolist() if auto else [None] * len(clean)
            for c in board.classes.tolist():
                where = [c, int(rank[c]), group.get(c), key.train_counts[c], key.test_counts[c]]
                errors = [100 - clean[c], clean[c] - union[c]]
                accuracies = [clean[c], auto, autoattack[c], union[c]]
                lines.append([*head, entry.label, *where, *accuracies, *errors, len(entry.runs)])
    return _csv(PER_CLASS, lines)


def markdown(boards: Sequence[Board]) -> str:
    """All boards as Markdown tables, each under a heading with its terms."""
    parts = ["# Leaderboard\n"]
    for board in boards:
        header, rows = _readable(board)
        lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 3) + ["---"], *rows]
        parts.append(f"## {_escaped(board.title)}\n")
        parts.append("".join("| " + " | ".join(_escaped(cell) for cell in line) + " |\n" for line in lines))
    return "\n".join([*parts, LEGEND + "\n"])


LEGEND = (
    "Percentages, mean over seeds. Worst case: the image withstands every attack of the suite, balanced over "
    "classes. #: one more than the number of entries above that are resolved better (exact McNemar test per seed "
    "pair, Holm's correction); what the data cannot tell apart shares a rank. Interval: 95 %, t over seeds, or with "
    "one seed Wilson within the run (marked w), which leaves out the spread between seeds. Head/medium/tail "
    "(h/m/t): thirds of the classes by training images. Gap: head minus tail, worst case; no measure of "
    "quality. Cost: images passed forward and backward in training, and its seconds."
)


def terminal_table(board: Board, width: int = 130) -> Table:
    """A board for the terminal; below 130 columns groups are whole numbers, flags stand below the table, and gap,
    seeds and cost are left to the files."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = width >= 130
    header, rows = _readable(board, group_decimals=1 if wide else 0)
    shown = [i for i, name in enumerate(header) if wide or name not in WIDE_ONLY]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left")
    if not wide:
        table.caption = _flag_lines(board)
    for i in shown:
        if header[i] in ("Method", "Flags"):
            table.add_column(header[i], min_width=8, overflow="fold")
        else:
            name = header[i].replace(" ", "\n").replace("AutoAttack", "Auto\nAttack")
            table.add_column(Text(name), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(row[i]) for i in shown))
    return table


def _flag_lines(board: Board) -> str | None:
    """One line per flag, with the entries that have it."""
    flagged: dict[str, list[str]] = {}
    for entry in board.entries:
        for flag in entry.flags:
            flagged.setdefault(flag, []).append(entry.label)
    lines = [
        f"{flag}: {', '.join(labels) if len(labels) <= NAMED else f'{len(labels)} entries'}"
        for flag, labels in flagged.items()
    ]
    return "\n".join(lines) or None


NAMED = 8
"""Entries that a line about a flag names."""
WIDE_ONLY = ("Tail", "Gap", "Seeds", "Cost", "Flags")


def _readable(board: Board, group_decimals: int = 1) -> tuple[list[str], list[list[str]]]:
    """Header and rows for people: one decimal, groups in one cell."""
    auto = board.autoattack if board.autoattack not in ("autoattack", None) else "AutoAttack"

    def groups(row: dict[str, Any], attack: str) -> str:
        values = (row[f"{attack}_{g}"] for g in ("head", "medium", "tail"))
        return "/".join("-" if v is None else f"{v:.{group_decimals}f}" for v in values)

    header = ["#", "Method", "Worst case", "Interval", auto, "Tail", "Worst 10%", "Clean", "Clean h/m/t"]
    header += ["Worst case h/m/t", "Gap", "Seeds", "Cost", "Flags"]
    rows = []
    for e in board.entries:
        row = _entry_cells(board, e)
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


def _entry_cells(board: Board, entry: Entry) -> dict[str, Any]:
    training = [record.cost.training for record in entry.runs]
    run = entry.runs[0].run
    cells: dict[str, Any] = {
        f"{attack}_{name}": float(entry.percent(attack, name))
        for attack in ("clean", "union")
        for name in ("balanced", "head", "medium", "tail", "worst_tenth", "head_tail_gap")
    }
    auto = board.autoattack
    return {
        **{name: None if value != value else round(value, DECIMALS) + 0.0 for name, value in cells.items()},
        "rank": entry.rank,
        "method": entry.label,
        "autoattack_kind": auto,
        "autoattack_balanced": round(float(entry.percent(auto, "balanced")), DECIMALS) if auto else None,
        "seeds": len(entry.runs),
        "interval_low": round(100 * entry.interval[0], DECIMALS),
        "interval_high": round(100 * entry.interval[1], DECIMALS),
        "interval_kind": entry.interval_kind,
        "training_forwards": round(np.mean([work.forwards for work in training])),
        "training_backwards": round(np.mean([work.backwards for work in training])),
        "training_seconds": round(float(np.mean([work.seconds for work in training])), DECIMALS),
        "optimizer_steps": round(np.mean([record.cost.optimizer_steps for record in entry.runs])),
        "training_epsilon": f"{number(run.recipe.attack.epsilon, run.epsilon):.6g}",
        "trials": max(record.status.trials for record in entry.runs),
        "verification": entry.level,
        "flags": "; ".join(entry.flags),
    }


def _short(value: Cell) -> str:
    return "-" if value is None else f"{value:.1f}"


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Cell) -> Cell:
    if not isinstance(value, float):
        return value
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return "" if value != value else f"{round(value, DECIMALS) + 0.0:.{DECIMALS}f}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
