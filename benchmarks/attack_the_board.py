"""Schemes to forge the board, tried on a copy of it; what validator, bot and board say of each.

    python benchmarks/attack_the_board.py            # all of them, and the table of docs/security.md
    python benchmarks/attack_the_board.py --only twin --only seed

The copy is a clone of this checkout, on whose main branch a maintainer's key is listed. A scheme is a pull request by a
stranger unless it says otherwise. Exit code 1 if one changes a rank, and neither the validator nor the bot says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- attack_the_board: begin -->", "<!-- attack_the_board: end -->"
sys.path[:0] = [str(ROOT), str(ROOT / ".github"), str(Path(__file__).parent)]

import submission  # noqa: E402
from board_schemes import SCHEMES, Copy  # noqa: E402

from ltrobust_bench.records.io import find_records  # noqa: E402
from ltrobust_bench.records.validate import validate  # noqa: E402
from ltrobust_bench.report.aggregate import boards  # noqa: E402
from ltrobust_bench.report.changes import Change, changes, rows_at, rows_of  # noqa: E402


@dataclass(frozen=True)
class Said:
    """What was said of a scheme.

    Attributes:
        validator: the rules that it breaks.
        bot: what the bot says besides, from its first line on.
        board: entries whose rank changes.
        entries: entries that change otherwise.
    """

    name: str
    words: str
    validator: list[str]
    bot: list[str]
    board: list[Change]
    entries: list[Change]

    @property
    def noticed(self) -> bool:
        return bool(self.validator or self.bot)

    @property
    def verdict(self) -> str:
        if not self.board:
            return "changes no rank"
        return "is noticed" if self.noticed else "CHANGES A RANK UNNOTICED"

    def row(self) -> str:
        moved = f"{len(self.board)} ranks" if self.board else "no rank"
        more = f", {len(self.entries)} otherwise" if self.entries else ""
        rules = ", ".join(f"`{rule}`" for rule in self.validator) or "nothing"
        return f"| {self.words} | {rules} | {'; '.join(self.bot) or 'nothing'} | {moved}{more} | {self.verdict} |"


def tried(copy: Copy, name: str) -> Said:
    """A scheme tried on the copy."""
    copy.again()
    SCHEMES[name](copy)
    copy.commit()
    listing = copy.git("diff", "--name-status", "--no-renames", "-z", "main...HEAD")
    found = submission.parse_changes(listing)  # nothing at all, where a maintainer's verification made no statement
    with chdir(copy.folder):
        ranked = submission.cards_that_change_ranked("main", found)
        task = submission.sort_out(found, ranked, submission.owners_of_statements("main"))
        code = any(not change.path.startswith("results/") for change in found)
        rules, moved = (_by_its_own_code if code else _by_ours)(copy)
    bot = [f"first line: {', '.join(task.decides)}"] if task.decides else []
    bot += [problem.split(": ")[-1].split(";")[0] for problem in task.problems]
    ranks = [change for change in moved if change.rank[0] != change.rank[1] and {*change.rank} != {None, ""}]
    words = (SCHEMES[name].__doc__ or name).strip()
    return Said(name, words, rules, bot, ranks, [change for change in moved if change not in ranks])


def _by_ours(copy: Copy) -> tuple[list[str], list[Change]]:
    records = Path("results/records")
    rules = sorted({problem.rule for problem in validate([records], against="main").problems})
    now = rows_of(boards(find_records([records])[0]))
    return rules, changes(rows_at("main", Path("results")), now)


def _by_its_own_code(copy: Copy) -> tuple[list[str], list[Change]]:
    """By the code of the pull request, as the bot's machine has it."""
    program = (
        "import json, sys; sys.path[:0] = ['.', 'benchmarks']; import attack_the_board as a\n"
        "rules, moved = a._by_ours(None)\n"
        "print(json.dumps([rules, [[c.board, c.method, c.rank, c.accuracy, c.why] for c in moved]]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(copy.folder)},
    )  # fmt: skip
    rules, moved = json.loads(found.stdout.splitlines()[-1])
    return rules, [Change(b, m, tuple(rank), tuple(accuracy), why) for b, m, rank, accuracy, why in moved]


def table(said: list[Said]) -> str:
    head = "| scheme | rules of the validator | the bot | the board | so it |\n| --- | --- | --- | --- | --- |"
    return "\n".join([head, *(one.row() for one in said)])


@click.command()
@click.option("--only", multiple=True, help="Only schemes whose name holds this; the page is left alone.")
def main(only: tuple[str, ...]) -> None:
    """Try to forge the board."""
    names = [name for name in SCHEMES if not only or any(part in name for part in only)]
    with tempfile.TemporaryDirectory(prefix="ltbench-attack-") as folder:
        copy = Copy(Path(folder))
        main_branch = copy.git("rev-parse", "main")
        said = []
        for name in names:
            if said:
                copy.git("branch", "--quiet", "--force", "main", main_branch)
            said.append(tried(copy, name))
            click.echo(f"{name}: {said[-1].verdict}: {said[-1].row()}")
            copy.git("switch", "--quiet", "--detach")
    unnoticed = [one.name for one in said if one.board and not one.noticed]
    click.echo(f"{len(said)} schemes, {len(unnoticed)} change a rank unnoticed{': ' if unnoticed else ''}"
               f"{', '.join(unnoticed)}")  # fmt: skip
    if not only:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table(said)}\n\n{END}{rest.partition(END)[2]}")
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
