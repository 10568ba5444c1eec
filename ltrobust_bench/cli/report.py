"""``ltbench report``: tables and figures from records."""

from __future__ import annotations

from pathlib import Path

import click

from ltrobust_bench.cli.shared import results_dir_option


@click.group(name="report")
def command() -> None:
    """Tables and figures from records."""


@command.command(epilog="Example: ltbench report leaderboard --records results/records --records runs --no-figures")
@results_dir_option
@click.option(
    "--records",
    "records_dirs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Read records from this folder or file instead; may be given several times.",
)
@click.option("--no-figures", is_flag=True, help="Write the tables only.")
@click.pass_context
def leaderboard(context: click.Context, results_dir: Path, records_dirs: tuple[Path, ...], no_figures: bool) -> None:
    """Rank all runs by worst-case robust accuracy, and write leaderboard.csv, groups.csv, per_class.csv,
    leaderboard.md and figures.

    Leaves with code 1 if a file was no valid record; the board is built from the others.
    """
    from rich.console import Console

    from ltrobust_bench.report import leaderboard as build
    from ltrobust_bench.report.tables import LEGEND, terminal_table

    result = build(records_dirs or (results_dir / "records",), results_dir, figures=not no_figures)
    console = Console(highlight=False, markup=False, emoji=False)
    for board in result.boards:
        console.print(board.title, style="bold")
        console.print(terminal_table(board, console.width))
    console.print(LEGEND, style="dim")
    for message in result.messages:
        console.print(f"note: {message}", style="yellow", soft_wrap=True)
    for path in result.written:
        console.print(f"wrote {path}", soft_wrap=True)
    context.exit(1 if result.damaged else 0)
