"""``ltbench report claims``"""

from __future__ import annotations

from pathlib import Path

import click

from ltrobust_bench.cli.shared import PATH, console, records_option, results_dir_option
from ltrobust_bench.cli.words import echo

VERDICTS = {"confirmed": "green", "refuted": "red", "not measured yet": "dim"}


@click.command(name="claims", epilog="Example: ltbench report claims --records results/records --records runs")
@click.option("--protocol", help="Protocol of the board (default: the lite one).")
@click.option("--dataset", "-d", help="Data set of the board (default: cifar10-lt).")
@click.option("--output", "-o", type=PATH, metavar="FILE", help="Default: claims.md in the folder of results.")
@results_dir_option
@records_option
@click.pass_context
def command(
    context: click.Context,
    protocol: str | None,
    dataset: str | None,
    output: Path | None,
    results_dir: Path,
    records_dirs: tuple[Path, ...],
) -> None:
    """Test on a board what the papers of RoBal, REAT, AT-BSL, TAET and RobustLT claim, and write claims.md.

    A claim is confirmed, refuted or not resolved at this scale; what no run shows yet is not measured. Leaves with
    code 1 if a file was no valid record; the rest is taken.
    """
    from rich.table import Table

    from ltrobust_bench.files import write_text
    from ltrobust_bench.report.claims.build import claims
    from ltrobust_bench.report.claims.page import PER

    result = claims(records_dirs or (results_dir / "records",), protocol, dataset)
    out, table = console(), Table("claim", "classes", "verdict", box=None, padding=(0, 2, 0, 0))
    for finding in result.findings:
        for group, verdict in finding.verdicts.items():
            table.add_row(finding.claim.id, PER[group], verdict, style=VERDICTS.get(verdict))
    out.print(table)
    waiting = sorted({label for labels in result.waiting.values() for label in labels})
    if waiting:
        out.print(f"entries that claims wait for: {', '.join(waiting)}", style="dim")
    path = output or results_dir / "claims.md"
    write_text(path, result.text)
    out.print(f"wrote {path}")
    for problem in result.problems:
        echo(problem, err=True)
    context.exit(1 if result.problems else 0)
