"""What became of the board since a commit: which ranks change, by how much, and why. No torch here."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltrobust_bench.errors import UsageError
from ltrobust_bench.records.history import git_output
from ltrobust_bench.report.board import Board
from ltrobust_bench.terms import printable

LEADERBOARD = "leaderboard.csv"
ABSENT: Mapping[str, str] = {}


@dataclass(frozen=True)
class Change:
    """An entry that is new, gone, or elsewhere.

    Attributes:
        board, method: where it stands and what it is called.
        rank: before and after; empty: not ranked, None: not on the board.
        accuracy: balanced worst case in per cent, before and after; empty: not on the board.
        why: what changed of the entry itself; "others moved" if nothing did.
    """

    board: str
    method: str
    rank: tuple[str | None, str | None]
    accuracy: tuple[str, str]
    why: str

    def __str__(self) -> str:
        before, after = ("absent" if r is None else f"rank {r}" if r else "not ranked" for r in self.rank)
        numbers = " -> ".join(dict.fromkeys(a for a in self.accuracy if a))
        return printable(f"{self.board}: {self.method}: {before} -> {after} ({numbers} %): {self.why}", 400)


def rows_at(commit: str, results_dir: Path) -> list[dict[str, str]]:
    """The lines of a committed ``leaderboard.csv``, as a commit holds it.

    Raises:
        UsageError: if the commit holds none.
    """
    text = git_output(results_dir.resolve(), "show", f"{commit}:./{LEADERBOARD}")
    if text is None:
        raise UsageError(f"--against {commit}: no {LEADERBOARD} of {results_dir} there; fetch it, or name another.")
    return list(csv.DictReader(io.StringIO(text.decode("utf-8", errors="replace"))))


def rows_of(boards: Sequence[Board]) -> list[dict[str, str]]:
    """The lines that ``leaderboard.csv`` has for some boards."""
    from ltrobust_bench.report.tables import texts

    return list(csv.DictReader(io.StringIO(texts(boards)[LEADERBOARD])))


def changes(before: Iterable[Mapping[str, str]], after: Iterable[Mapping[str, str]]) -> list[Change]:
    """What differs between two boards, those whose rank changed first.

    Example:
        >>> old = [{"board": "b", "method": "at", "rank": "1", "union_balanced": "50.00"}]
        >>> print(changes(old, [{**old[0], "rank": "2"}])[0])
        b: at: rank 1 -> rank 2 (50.00 %): others moved
    """
    old, new = ({(row["board"], row["method"]): row for row in rows} for rows in (before, after))
    found = []
    for key in dict.fromkeys([*new, *old]):
        was, now = old.get(key, ABSENT), new.get(key, ABSENT)
        why = "new" if not was else "gone" if not now else _why(was, now)
        rank = (was.get("rank"), now.get("rank"))
        if why or rank[0] != rank[1]:
            accuracy = (was.get("union_balanced", ""), now.get("union_balanced", ""))
            found.append(Change(*key, rank, accuracy, why or "others moved"))
    return sorted(found, key=lambda change: change.rank[0] == change.rank[1])


def _why(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What changed of an entry but its rank; empty: nothing."""
    said = []
    for name, words, split in (("records", "record", None), ("flags", "flag", "; ")):
        old, new = ([w for w in row.get(name, "").split(split) if w] for row in (was, now))
        said += [f"{words} {value} added" for value in new if value not in old]
        said += [f"{words} {value} gone" for value in old if value not in new]
    for name, words in (("verification", "verification"), ("union_balanced", "worst case")):
        if was.get(name) != now.get(name):
            said.append(f"{words} {was.get(name) or 'none'} -> {now.get(name) or 'none'}")
    return ", ".join(said)
