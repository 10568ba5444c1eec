"""``ltbench report changes``"""

from __future__ import annotations

from pathlib import Path

import click

from ltrobust_bench.cli.shared import results_dir_option
from ltrobust_bench.cli.words import echo

SHOWN = 40


@click.command(name="changes", epilog="Example: ltbench report changes --against origin/main")
@click.option("--against", required=True, metavar="REF", help="Commit whose leaderboard.csv is compared with.")
@results_dir_option
def command(against: str, results_dir: Path) -> None:
    """What the board would look like: which ranks change since a commit, by how much, and why.

    The board of the commit is its leaderboard.csv; the present one is built from the records that lie there.
    """
    from ltrobust_bench.records.io import find_records
    from ltrobust_bench.report import aggregate
    from ltrobust_bench.report.changes import changes, rows_at, rows_of

    before = rows_at(against, results_dir)
    records, problems = find_records([results_dir / "records"])
    found = changes(before, rows_of(aggregate.boards(records)) if records else [])
    moved = sum(change.rank[0] != change.rank[1] for change in found)
    echo(f"{moved} of {len(before)} entries change their rank, {len(found) - moved} change otherwise")
    for change in found[:SHOWN]:
        echo(str(change))
    if len(found) > SHOWN:
        echo(f"and {len(found) - SHOWN} more")
    for problem in problems:
        echo(f"note: {problem}", err=True)
