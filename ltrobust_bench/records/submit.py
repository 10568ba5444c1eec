"""From a finished run to a file that can be proposed for the board."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ltrobust_bench.errors import RecordError, UsageError
from ltrobust_bench.protocol import load_protocol, protocols
from ltrobust_bench.records.io import read_record, record_files
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.validate import Document, Problem, examine, load, shown


@dataclass(frozen=True)
class Submission:
    """A record and its place on the board.

    Attributes:
        record: the record.
        path: its file below ``results``.
        filed: whether the same record lies there already.
    """

    record: Record
    path: Path
    filed: bool


def submission(run: Path, results_dir: Path) -> Submission:
    """What submitting a finished run would file.

    Args:
        run: its folder, or its record.
        results_dir: the folder with ``records``.

    Raises:
        RecordError: if there is no valid record.
        UsageError: for a run that joins no board, or a place that holds another record.
    """
    record = read_record(run / "record.json" if run.is_dir() else run)
    if record.status.reduced:
        raise UsageError(f"{run} is a reduced run (a limit or --epochs), which joins no board; run it in full.")
    if record.run.protocol in protocols and load_protocol(record.run.protocol).status == "smoke":
        raise UsageError(f"{run} is a smoke test, which joins no board; run it without --protocol smoke.")
    path = results_dir / "records" / record.run.record_path()
    if path.exists() and read_record(path) != record:
        raise RecordError(f"{path} holds another record of the same run; records are append-only, so it stays.")
    return Submission(record, path, path.exists())


def refusals(submissions: Sequence[Submission], results_dir: Path) -> list[Problem]:
    """What the rules find wrong with the records submitted, alone and beside those that are filed."""
    board = (results_dir / "records").absolute()
    filed, _ = load(record_files(board))
    new = [Document(s.path.absolute(), board, s.record) for s in submissions if not s.filed]
    paths = {shown(s.path.absolute()) for s in submissions}
    return [p for p in examine([*filed, *new], datetime.now(UTC)) if p.path in paths]


def git_commands(submissions: Sequence[Submission]) -> list[str]:
    """What to type so that the files become a pull request."""
    run = submissions[0].record.run
    what = "+".join([run.method, *run.plugins])
    seeds = ", ".join(str(s.record.run.seed) for s in submissions)
    message = f"Record: {what} on {run.dataset}, seed {seeds}"
    branch = f"record-{what}-{run.dataset}-{submissions[0].record.id}"
    return [
        shlex.join(command)
        for command in (
            ["git", "switch", "--create", branch],
            ["git", "add", *(str(s.path) for s in submissions)],
            ["git", "commit", "--message", message],
            ["git", "push", "--set-upstream", "origin", branch],
        )
    ]
