"""Several boards together: mean ranks, who beats whom how often, and what share of the balanced reference is reached.

Every number depends on the pool: which entries are compared on which boards. Both are stated with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltrobust_bench.errors import UsageError
from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.report.compare import resolved_pairs
from ltrobust_bench.report.tables import DECIMALS, Cell, csv_lines, markdown_text
from ltrobust_bench.scores.intervals import t_interval


@dataclass(frozen=True)
class Across:
    """Entries that are ranked on each of several boards, best mean rank first.

    Attributes:
        boards: that they are compared on.
        labels: of the entries, [E].
        seeds: in which every entry was run on every board; empty: there is none, and ranks are those of means.
        mean_rank: by balanced worst-case accuracy among these entries, mean over boards, and over seeds, [E].
        low, high: its 95 % t interval over the seeds, [E]; NaN with fewer than two.
        wins: on how many boards [i, j] the test tells that i beats j, [E, E].
        share: of the balanced reference's worst-case accuracy, mean over the boards that have one, [E]; NaN without.
        referenced: boards that have a reference.
        aside: boards that were left out, because they share too few entries with the others.
    """

    boards: tuple[Board, ...]
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    mean_rank: np.ndarray
    low: np.ndarray
    high: np.ndarray
    wins: np.ndarray
    share: np.ndarray
    referenced: int
    aside: tuple[Board, ...] = ()

    @property
    def pool(self) -> str:
        """What the numbers depend on, in a sentence."""
        datasets = ", ".join(
            f"{board.key.dataset} ({board.key.threat_model}, protocol {board.key.protocol})" for board in self.boards
        )
        seeds = f"seeds {', '.join(map(str, self.seeds))}" if self.seeds else "no seed in common: means over own seeds"
        aside = f" Left out, for want of common entries: {', '.join(b.slug for b in self.aside)}." if self.aside else ""
        return (
            f"The pool: {len(self.labels)} entries that are ranked on all of {len(self.boards)} boards, {datasets}; "
            f"{seeds}. Another pool gives other mean ranks.{aside}"
        )


def comparable(boards: Sequence[Board], track: str = "fixed") -> list[Board]:
    """Boards that may stand together: full runs under a data set's usual terms, of each data set and threat model the
    board of the best standing."""
    found: dict[tuple[str, str], Board] = {}
    for board in boards:  # the data set's own protocol comes first
        right = board.key.track == track and board.usual and not board.key.reduced and board.status != "smoke"
        if right and not board.missing:
            found.setdefault((board.key.dataset, board.key.threat_model), board)
    return list(found.values())


def across(boards: Sequence[Board]) -> Across:
    """Boards together; the order of boards does not matter but for the text.

    Raises:
        UsageError: with fewer than two boards, or no two entries that are ranked on all of them.
    """
    asked, boards = boards, widest(boards)
    if len(boards) < 2:
        there = f": {boards[0].title}" if boards else ""
        raise UsageError(f"{len(boards)} board(s) of full runs under usual terms{there}; at least 2 are needed.")
    ranked = [{entry.label: entry for entry in board.entries if entry.rank is not None} for board in boards]
    labels = [label for label in ranked[0] if all(label in others for others in ranked)]
    aside = tuple(board for board in asked if not any(board is other for other in boards))
    if len(labels) < 2:
        raise UsageError(f"{len(labels)} entries are ranked on all of {len(boards)} boards; at least 2 are needed.")
    entries = [[own[label] for label in labels] for own in ranked]
    seeds = sorted(set.intersection(*(_seeds(entry) for own in entries for entry in own)))
    accuracy = np.stack([[_balanced(entry, seeds) for entry in own] for own in entries])  # [boards, entries, seeds]
    by_seed = ranks_of(accuracy.transpose(2, 0, 1)).mean(axis=1)
    low, high = t_interval(by_seed)
    wins = np.sum([resolved_pairs([entry.runs for entry in own]) for own in entries], axis=0)
    share, referenced = _shares(boards, entries)
    mean = by_seed.mean(axis=0)
    order = np.lexsort((labels, np.round(mean, 9)))
    return Across(
        tuple(boards),
        tuple(labels[i] for i in order),
        tuple(seeds),
        mean[order],
        np.clip(low, 1, len(labels))[order],
        np.clip(high, 1, len(labels))[order],
        wins[np.ix_(order, order)],
        share[order],
        referenced,
        aside,
    )


def widest(boards: Sequence[Board]) -> list[Board]:
    """The boards whose common entries make the most numbers, entries times boards: those with the most ranked entries
    and so on, at least two; a board that few entries are on would leave the others without them."""
    ranked = [{entry.label for entry in board.entries if entry.rank is not None} for board in boards]
    order = sorted(range(len(boards)), key=lambda place: (-len(ranked[place]), boards[place].slug))
    sizes = [
        (count * len(set.intersection(*(ranked[place] for place in order[:count]))), count)
        for count in range(2, len(order) + 1)
    ]
    most = max(sizes, default=(0, len(order)))[1]
    return [boards[place] for place in sorted(order[:most])]


def ranks_of(accuracy: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, 1 for the highest; equal ones share the mean of their ranks."""
    above = (accuracy[..., None, :] > accuracy[..., :, None]).sum(axis=-1)
    equal = (accuracy[..., None, :] == accuracy[..., :, None]).sum(axis=-1)
    return above + (equal + 1) / 2


def _seeds(entry: Entry) -> set[int]:
    return {record.run.seed for record in entry.runs}


def _balanced(entry: Entry, seeds: Sequence[int]) -> np.ndarray:
    """Worst-case accuracy in each seed, [S]; without seeds their mean, [1]. In whole steps of ``DECIMALS``."""
    own = entry.per_seed("union", "balanced")
    if not seeds:
        return np.round([own.mean()], DECIMALS)
    return np.round([own[[r.run.seed for r in entry.runs].index(seed)] for seed in seeds], DECIMALS)


def _shares(boards: Sequence[Board], entries: Sequence[Sequence[Entry]]) -> tuple[np.ndarray, int]:
    found = [
        [float(entry.percent("union", "balanced") / board.reference.percent("union", "balanced")) for entry in own]
        for board, own in zip(boards, entries, strict=True)
        if board.reference is not None and board.reference.percent("union", "balanced") > 0
    ]
    return (np.mean(found, axis=0) if found else np.full(len(entries[0]), np.nan)), len(found)


HEADER = ("method", "mean_rank", "low", "high", "wins", "losses", "share_of_reference")


def rows(found: Across) -> list[list[Cell]]:
    """One row per entry with the columns ``HEADER``; None where there is no number."""
    numbers = zip(
        found.mean_rank, found.low, found.high, found.wins.sum(1), found.wins.sum(0), found.share, strict=True
    )
    return [
        [label, *(None if n != n else round(float(n), DECIMALS) for n in line[:3]), int(line[3]), int(line[4]),
         None if line[5] != line[5] else round(100 * float(line[5]), DECIMALS)]
        for label, line in zip(found.labels, numbers, strict=True)
    ]  # fmt: skip


def as_csv(found: Across) -> str:
    """One line per entry, then the win matrix: each entry's wins against each other one, in boards."""
    matrix = [[label, *own] for label, own in zip(found.labels, found.wins.tolist(), strict=True)]
    return csv_lines([list(HEADER), *rows(found), [], ["wins_against", *found.labels], *matrix])


def as_markdown(found: Across) -> str:
    """A page: the pool, mean ranks, the win matrix."""

    def text(value: Cell) -> str:
        return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else markdown_text(str(value))

    def table(head: Sequence[str], lines: Sequence[Sequence[Cell]]) -> str:
        rule = ["---", *["---:"] * (len(head) - 1)]
        return "".join(
            "| " + " | ".join(line) + " |\n"
            for line in [head, rule, *([text(cell) for cell in line] for line in lines)]
        )

    heads = ("method", "mean rank", "low", "high", "wins", "losses", "% of reference")
    numbers = [str(place + 1) for place in range(len(found.labels))]
    matrix = [[f"{n} {label}", *own] for n, label, own in zip(numbers, found.labels, found.wins.tolist(), strict=True)]
    return (
        f"# Across data sets\n\n{markdown_text(found.pool)}\n\n{table(heads, rows(found))}\n{LEGEND}\n"
        "\n## Who beats whom\n\nOn how many boards the one of the line is resolved better than the one of the column.\n"
        f"\n{table(['', *numbers], matrix)}"
    )


LEGEND = (
    "Mean rank: by balanced worst-case accuracy among the pool, mean over boards and seeds; its 95 % interval is t "
    "over seeds. Wins and losses: pairs on boards that the paired test tells apart. % of reference: worst-case "
    "accuracy over that of plain adversarial training on as many images in equal classes, mean over the boards that "
    "have one; like wins, over all seeds of a board, where ranks are of the seeds that all have."
)
