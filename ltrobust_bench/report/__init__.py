"""Boards, tables and figures from records. Importing this is light; the work is imported when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from ltrobust_bench.records.schema import Record
    from ltrobust_bench.report.board import Board

SHOWN_BOARDS, SHOWN_ENTRIES = 3, 15
"""What a notebook shows of a leaderboard."""


@dataclass(frozen=True, repr=False)
class LeaderboardResult:
    """What :func:`leaderboard` built.

    Attributes:
        boards: see :class:`ltrobust_bench.report.board.Board`.
        messages: what was left out or looks odd, damaged records first.
        damaged: number of files that are no valid record.
        written: files written.
    """

    boards: list[Board]
    messages: list[str]
    damaged: int
    written: list[Path]

    def __repr__(self) -> str:
        entries = sum(len(board.entries) for board in self.boards)
        said = f", {len(self.messages)} messages" if self.messages else ""
        return f"<Leaderboard of {len(self.boards)} boards, {entries} entries{said}: .to_frame(), .markdown()>"

    def _repr_html_(self) -> str:
        from ltrobust_bench.notebook import table
        from ltrobust_bench.report.tables import shown_rows

        parts = []
        for board in self.boards[:SHOWN_BOARDS]:
            header, rows = shown_rows(board)
            more = f"{len(rows) - SHOWN_ENTRIES} more entries: .to_frame()" if len(rows) > SHOWN_ENTRIES else ""
            parts.append(table(board.title, header, rows[:SHOWN_ENTRIES], more))
        left = len(self.boards) - SHOWN_BOARDS
        return "".join(parts) + (f"<div>{left} more boards: .boards, .to_frame()</div>" if left > 0 else "")

    def markdown(self) -> str:
        """The boards as Markdown."""
        from ltrobust_bench.report.tables import markdown

        return markdown(self.boards)

    def to_frame(self) -> pd.DataFrame:
        """One row per entry, the columns of ``leaderboard.csv``; accuracies are percentages."""
        import pandas as pd

        from ltrobust_bench.report.columns import LEADERBOARD
        from ltrobust_bench.report.tables import leaderboard_rows

        return pd.DataFrame(leaderboard_rows(self.boards), columns=list(LEADERBOARD))


def find_board(records_dirs: Sequence[Path], **wanted: Any) -> tuple[Board, list[str]]:
    """The one board of full runs that fits, and a message for each file that is no record.

    Args:
        wanted: fields of the board's key (dataset, protocol, track, imbalance_ratio, profile, model); None fits all,
            and if several boards fit, means the data set's own protocol and that one's ratio, profile and network.

    Raises:
        UsageError: if none or several fit; the message names what there is.
    """
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.records.io import find_records
    from ltrobust_bench.report import aggregate

    records, problems = find_records(records_dirs)
    full = [board for board in aggregate.boards(records) if not board.key.reduced]
    fitting = [b for b in full if all(v is None or getattr(b.key, k) == v for k, v in wanted.items())]
    for preferred in ("main", "usual"):
        if len(fitting) > 1:
            fitting = [board for board in fitting if getattr(board, preferred)] or fitting
    if len(fitting) != 1:
        asked = ", ".join(f"{k} {v}" for k, v in wanted.items() if v is not None)
        damaged = f" ({len(problems)} damaged, the first: {problems[0]})" if problems else ""
        nothing = "only reduced runs" if records else f"no records{damaged}"
        there = "; ".join(b.title for b in fitting or full) or f"{nothing} in {', '.join(map(str, records_dirs))}"
        raise UsageError(f"{len(fitting)} boards fit {asked or 'the request'}; there are: {there}.")
    return fitting[0], problems


def read_records(folders: Sequence[Path], results: Sequence[Path] = ()) -> tuple[list[Record], list[str]]:
    """All records below some folders that count, and a message for each file that is none, and each folder missing.

    Args:
        results: folders whose retractions hold besides those that lie beside the records.

    Raises:
        UsageError: if there is no readable record.
    """
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.records.io import find_records

    records, problems = find_records(folders, results)
    if not records:
        looked = ", ".join(str(folder) for folder in folders)
        damaged = f" ({len(problems)} damaged, the first: {problems[0]})" if problems else ""
        raise UsageError(
            f"no records in {looked}{damaged}; make one with `ltbench run --method reat --dataset digits-lt`."
        )
    missing = [f"there is no file or folder {folder}" for folder in folders if not folder.exists()]
    return records, [*missing, *problems]


def leaderboard(
    records_dirs: Path | str | Sequence[Path | str] = (Path("results/records"),),
    output: Path | str | None = None,
    figures: bool = True,
) -> LeaderboardResult:
    """Build every board from the records below some folders; write tables and figures where a folder is named.

    Writes ``leaderboard.csv``, ``groups.csv``, ``per_class.csv`` and ``leaderboard.md`` below ``output``, and
    ``figures/<board>/{per_class,tradeoff}.{png,svg,pdf}``. The same records give the same bytes.

    Args:
        records_dirs: a folder (or single file) to read records from, or several.
        output: folder to write to; None: nothing is written.
        figures: whether to draw figures there.

    Raises:
        UsageError: if there is no readable record, or ``output`` cannot be written.
    """
    from ltrobust_bench.files import write_text
    from ltrobust_bench.records.trust import retracted
    from ltrobust_bench.report import aggregate, tables

    folders = [Path(records_dirs)] if isinstance(records_dirs, (str, Path)) else [Path(f) for f in records_dirs]
    beside = [] if output is None else [Path(output)]
    records, problems = read_records(folders, beside)
    boards = aggregate.boards(records)
    written: list[Path] = []
    for place in beside:
        texts = tables.texts(boards)
        written += [place / name for name in texts]
        for path, text in zip(written, texts.values(), strict=True):
            write_text(path, text)
        if figures:
            from ltrobust_bench.report.figures import FILES, draw

            for board in boards:
                written += chain(*(draw(board, name, place / "figures" / board.slug) for name in FILES))
    messages = problems + [message for board in boards for message in board.messages]
    gone = retracted([*folders, *beside]).values()
    messages += [f"record {r.record} ({r.path}) is retracted, {r.date}: {r.reason}" for r in gone]
    return LeaderboardResult(boards, messages, len(problems), written)
