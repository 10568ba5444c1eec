"""What the page across boards shows: mean ranks, wins, and accuracies under other mixes of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ltrobust_bench.errors import UsageError
from ltrobust_bench.report.across import HEADER, Across, across, comparable, rows
from ltrobust_bench.report.board import Board
from ltrobust_bench.report.tables import Cell
from ltrobust_bench.scores.priors import PRIORS, prior_named, under

COLUMNS = dict(
    zip(
        HEADER,
        ("Method", "Mean rank", "from", "to", "Wins", "Losses", "% of reference"),
        strict=True,
    )
)


@dataclass(frozen=True)
class Mixes:
    """A board's worst-case accuracies under ``PRIORS``: of each entry, its label and for each prior the accuracy and
    its interval, as people see them."""

    board: Board
    lines: list[tuple[str, list[tuple[str, str]]]]


def pooled(boards: Sequence[Board]) -> tuple[Across | None, list[list[Cell]], str]:
    """Boards together and their rows; without enough of them None and the reason."""
    try:
        found = across(comparable(boards))
    except UsageError as error:
        return None, [], str(error)
    return found, rows(found), ""


def mixes(board: Board) -> Mixes:
    """A board's entries under each prior."""
    key, lines = board.key, []
    for entry in board.entries:
        per_class = entry.per_seed("union", "per_class") / 100
        cells = []
        for name in PRIORS:
            found = under(prior_named(name, key.train_counts), per_class, key.test_counts)
            mean, low, high = (100 * float(value) for value in (found.mean, found.low, found.high))
            cells.append((f"{mean:.1f}", f"{low:.1f}–{high:.1f}" if low == low else "–"))
        lines.append((entry.label, cells))
    return Mixes(board, lines)
