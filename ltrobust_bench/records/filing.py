"""The one door through which a record comes to lie below ``results/records``: :func:`filing`.

One rule says what is the same result: the same run key and the same result digest, which is the record's ``id``.
Environment and cost may differ, and the record that lies there already stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ltrobust_bench.errors import RecordError, UsageError
from ltrobust_bench.plan.code import Code
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.records.history import never_committed
from ltrobust_bench.records.io import read_record, record_files, write_record
from ltrobust_bench.records.proposal import base_of, commands, left_behind
from ltrobust_bench.records.rules import Case
from ltrobust_bench.records.rules.filed import unfit, unfit_record
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.validate import Document, Problem, examine, load, odd_seeds, shown


def unfit_note(run: RunSection, code: Sequence[Code]) -> str:
    """One line about why no board will accept a run's record, for before its first step; empty: nothing is known.

    Args:
        code: of its sessions so far, this process's last.
    """
    reasons = unfit(run, code)
    return f"no board accepts its record, which is not filed: {'; '.join(reasons)}" if reasons else ""


@dataclass(frozen=True)
class Filing:
    """A record and its place on the board.

    Attributes:
        record: the record.
        path: its file below ``results``.
        there: what lies there: nothing, the same result, or another that was never committed and is replaced.
    """

    record: Record
    path: Path
    there: Literal["nothing", "same", "replaced"]

    def write(self) -> str:
        """Put the record in its place, if the same result does not lie there; says what was done."""
        if self.there == "same":
            return f"already filed: {self.path}"
        write_record(self.record, self.path)
        return f"filed: {self.path}{' (in place of one never committed)' if self.there == 'replaced' else ''}"


def filing(record: Record, results_dir: Path, *, replace: bool = False) -> Filing:
    """What filing a record would do; nothing is written yet.

    Args:
        results_dir: the folder with ``records``.
        replace: whether another record of the same run may be replaced, if no commit holds it.

    Raises:
        UsageError: for a record that no board accepts.
        RecordError: if another result of the same run lies there and stays, or a file that is no record.
    """
    place = record.run.record_path()
    reasons = unfit_record(Case.of(record, place, datetime.now(UTC)))
    if reasons:
        raise UsageError(f"not filed, no board accepts this record: {'; '.join(reasons)}.")
    path = results_dir / "records" / place
    if not path.exists():
        return Filing(record, path, "nothing")
    other = read_record(path)
    # The same result with more trials behind it: it was run before its settings were found again by tuning.
    replace = replace or (other.id == record.id and other.status.trials < record.status.trials)
    if other == record or (other.id == record.id and not replace):
        return Filing(record, path, "same")
    if not never_committed(path):
        if other.id == record.id:
            return Filing(record, path, "same")
        raise RecordError(f"not filed: {path} holds another result of the same run; records are append-only.")
    if replace:
        return Filing(record, path, "replaced")
    raise RecordError(
        f"not filed: {path} holds another result of the same run. No commit holds that file: `ltbench record submit` "
        f"replaces it."
    )


def file_record(record: Record, results_dir: Path) -> str:
    """File a record if its place is free, and say in one line what was done, or why nothing was."""
    try:
        return filing(record, results_dir).write()
    except UsageError as refusal:
        return str(refusal)


def refusals(filings: Sequence[Filing], results_dir: Path) -> list[Problem]:
    """What the rules find wrong with the records to be filed, alone and beside those that are filed."""
    board = (results_dir / "records").absolute()
    paths = {shown(f.path.absolute()) for f in filings}
    new = [Document(f.path.absolute(), board, f.record) for f in filings if f.there != "same"]
    replaced = {document.path for document in new}
    filed, _ = load(path for path in record_files(board) if path not in replaced)
    found = examine([*filed, *new], datetime.now(UTC)) + odd_seeds([*filed, *new])
    return [problem for problem in found if problem.path in paths]


def proposal(filings: Sequence[Filing], results_dir: Path) -> tuple[list[str], str]:
    """What to type so that the files become a pull request, and one line about what stands in its way; empty: nothing
    is known."""
    run = filings[0].record.run
    what = run.combination
    seeds = ", ".join(str(f.record.run.seed) for f in filings)
    message = f"Record: {what} on {run.dataset}, seed {seeds}"
    branch = f"record-{what}-{run.dataset}-{filings[0].record.id}"
    base = base_of(results_dir)
    missing = left_behind((c for f in filings for c in _commits(f.record)), base, results_dir)
    obstacle = (
        f"it will be refused: {base} does not have commit {missing[0][:7]}, from which it was computed; merge that "
        f"first, and run from the merged commit."
        if missing
        else ""
    )
    return commands(branch, [f.path for f in filings], message, base), obstacle


def _commits(record: Record) -> list[str | None]:
    """The commits that a record names."""
    return [record.environment.git_commit, *(code.commit for code in record.environment.code)]
