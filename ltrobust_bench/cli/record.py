"""``ltbench record``: what may be on a board, and how it gets there."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ltrobust_bench.cli import statements
from ltrobust_bench.cli.shared import PATH, print_or_write, results_dir_option
from ltrobust_bench.cli.words import counted, echo


@click.group(name="record")
def command() -> None:
    """Validate, submit, show, verify, sign, recheck, lower, retract and export records; write networks as graphs.

    Records are append-only: a file below results/records is never edited or deleted, a wrong one is retracted.
    """


for statement in statements.COMMANDS:
    command.add_command(statement)


@command.command(epilog="Example: ltbench record validate results/records --against origin/main")
@click.argument("paths", nargs=-1, type=PATH)
@click.option("--against", metavar="REF", help="Commit since which no record may have changed (default: HEAD).")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
@results_dir_option
@click.pass_context
def validate(
    context: click.Context, paths: tuple[Path, ...], against: str | None, as_json: bool, results_dir: Path
) -> None:
    """Find what is wrong with records, in seconds: schema, terms, split, bits, cost, place, provenance, edits.

    PATHS are files or folders (default: the folder records of --results-dir). Files in a folder called records are
    what a board shows: they must be full runs, lie in their place, and name a clean commit; retractions beside that
    folder are checked with it. In a git checkout, files that the commit holds must still be as it holds them.

    Exit codes: 0 nothing wrong, 1 problems, 2 wrong usage.
    """
    from ltrobust_bench.records.validate import validate as examined

    report = examined(paths or (results_dir / "records",), against=against)
    if as_json:
        echo(json.dumps(asdict(report), indent=1))
    else:
        for problem in report.problems:
            echo(str(problem))
        retracted = f", {report.retracted} of them retracted" if report.retracted else ""
        compared = "; ".join(
            [f"compared with {report.against}" if report.against else "not compared with git", *report.notes]
        )
        found = f"{counted(report.records, 'record')}{retracted}, {counted(len(report.problems), 'problem')}"
        echo(f"{found}; {compared}")
    context.exit(1 if report.problems else 0)


@command.command(epilog="Example: ltbench record submit runs/reat-digits-lt-ir20-small-s0-1a2b3c4d")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=PATH)
@results_dir_option
@click.pass_context
def submit(context: click.Context, runs: tuple[Path, ...], results_dir: Path) -> None:
    """Put the records of finished runs in their place, and print the git commands that propose them.

    RUN is a run's folder or its record. Nothing is written unless every record passes the rules of `record validate`;
    a record that is there already stays as it is, unless it is another that no commit holds.
    """
    from ltrobust_bench.records.filing import filing, proposal, refusals
    from ltrobust_bench.records.io import read_record

    filings = []
    for run in runs:
        each = filing(read_record(run), results_dir, replace=True)
        if each not in filings:  # a run's folder and its record may both be named
            filings.append(each)
    problems = refusals(filings, results_dir)
    for problem in problems:
        echo(str(problem))
    if problems:
        echo(f"{counted(len(problems), 'problem')}; nothing was written")
        context.exit(1)
    for each in filings:
        echo(each.write())
    lines, obstacle = proposal(filings, results_dir)
    echo("To propose it, on a branch of its own:")
    for line in lines:
        echo(f"  {line}")
    if obstacle:
        echo(f"note: {obstacle}")


@command.command(epilog="Example: ltbench record ship runs/at-bsl-cifar10-lt-ir50-resnet8-s0-1a2b3c4d")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=PATH)
@click.option("--name", help="Such as lite:at-bsl (default: protocol and entry); for a single RUN.")
@results_dir_option
def ship(runs: tuple[Path, ...], name: str | None, results_dir: Path) -> None:
    """Put the networks of finished runs beside their filed records, under names that `eval` takes.

    They are copied to the folder weights of --results-dir and listed in its index.json; commit both. All together may
    have 8 MB.
    """
    from ltrobust_bench import verbs
    from ltrobust_bench.errors import UsageError

    if name is not None and len(runs) > 1:
        raise UsageError(f"--name names one network, and {len(runs)} runs are given.")
    for run in runs:
        echo(f"{verbs.ship(run, results_dir, name)}: {run}")


@command.command(epilog="Example: ltbench record export --robustbench runs/at-cifar10-lt-ir50-resnet18-s0-1a2b3c4d")
@click.argument("record", type=PATH)
@click.option("--robustbench", is_flag=True, required=True, help="In the form of RobustBench's model_info.")
@click.option("--output", type=PATH, metavar="FILE", help="Write to a file instead.")
def export(record: Path, robustbench: bool, output: Path | None) -> None:
    """Print a record in another benchmark's form: RobustBench's model_info JSON.

    RECORD is a record or a run's folder. What keeps RobustBench from listing the model (another data set, radius or
    test set) is said, and the JSON is printed all the same.
    """
    from ltrobust_bench.interop.model_info import model_info, obstacles
    from ltrobust_bench.records.io import read_record

    found = read_record(record)
    text = json.dumps(model_info(found), indent=2) + "\n"
    for obstacle in obstacles(found):
        echo(f"note: {obstacle}.", err=True)
    print_or_write(text, output)


@command.command(epilog="Example: ltbench record schema > docs/record.schema.json")
def schema() -> None:
    """Print the JSON Schema of a record."""
    from ltrobust_bench.records.schema import json_schema

    echo(json_schema(), nl=False)
