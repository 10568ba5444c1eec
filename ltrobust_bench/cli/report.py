"""``ltbench report``: tables and figures from records, of one network, and of what papers report."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import click

from ltrobust_bench.cli import changes, figures, site, table
from ltrobust_bench.cli.analyse import command as analyse
from ltrobust_bench.cli.campaign import command as campaign
from ltrobust_bench.cli.claims import command as claims
from ltrobust_bench.cli.published import command as published
from ltrobust_bench.cli.shared import PATH, board_options, console, print_or_write, records_option, results_dir_option
from ltrobust_bench.cli.words import echo


@click.group(name="report")
def command() -> None:
    """Tables, figures and web pages from records, of one network, and of what papers report."""


command.add_command(analyse)
command.add_command(campaign)
command.add_command(claims)
command.add_command(published)
command.add_command(changes.command)
command.add_command(site.command)
command.add_command(figures.command)
command.add_command(table.command)


@command.command(epilog="Example: ltbench report leaderboard --records results/records --records runs --no-figures")
@results_dir_option
@records_option
@click.option("--no-figures", is_flag=True, help="Write the tables only.")
@click.option(
    "--top",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    help="Entries printed of each board; files hold all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print every entry for programs, and write nothing.")
@click.pass_context
def leaderboard(
    context: click.Context,
    results_dir: Path,
    records_dirs: tuple[Path, ...],
    no_figures: bool,
    top: int,
    as_json: bool,
) -> None:
    """Rank all runs by worst-case robust accuracy, and write leaderboard.csv, groups.csv, per_class.csv,
    leaderboard.md and figures.

    Leaves with code 1 if a file was no valid record; the board is built from the others.
    """
    from ltrobust_bench.report import leaderboard as build
    from ltrobust_bench.report.compare import resolution_in_words
    from ltrobust_bench.report.tables import LEGEND, terminal_table

    if as_json:
        result = build(records_dirs or (results_dir / "records",))
        echo(result.to_frame().to_json(orient="records", indent=1))
        context.exit(1 if result.damaged else 0)
    out = console()
    result = build(records_dirs or (results_dir / "records",), results_dir, figures=not no_figures)
    for board in result.boards:
        out.print(board.title, style="bold")
        out.print(terminal_table(board, out.width, top))
        if board.status != "smoke" and (floor := resolution_in_words(board)):
            out.print(floor, style="dim")
    out.print(LEGEND, style="dim")
    for message in result.messages:
        out.print(f"note: {message}", style="yellow")
    for path in result.written:
        out.print(f"wrote {path}")
    context.exit(1 if result.damaged else 0)


@command.command(epilog="Example: ltbench report across --format csv --output across.csv")
@click.option("--track", type=click.Choice(["fixed", "paper"]), default="fixed", show_default=True)
@click.option("--format", "form", type=click.Choice(["markdown", "csv"]), default="markdown", show_default=True)
@click.option("--output", "-o", type=PATH, metavar="FILE", help="Write it here instead of printing it.")
@results_dir_option
@records_option
@click.pass_context
def across(
    context: click.Context,
    track: str,
    form: str,
    output: Path | None,
    results_dir: Path,
    records_dirs: tuple[Path, ...],
) -> None:
    """Several data sets together: mean ranks with intervals over seeds, who beats whom on how many boards, and the
    share of the balanced reference reached. It says on which pool of entries it depends."""
    from ltrobust_bench.report import aggregate, read_records
    from ltrobust_bench.report.across import across as together
    from ltrobust_bench.report.across import as_csv, as_markdown, comparable

    records, problems = read_records(records_dirs or (results_dir / "records",))
    found = together(comparable(aggregate.boards(records), track))
    print_or_write(as_csv(found) if form == "csv" else as_markdown(found), output)
    for message in problems:
        echo(f"note: {message}", err=True)
    context.exit(1 if problems else 0)


@command.command(epilog="Example: ltbench report compare reat at-bsl --dataset cifar10-lt")
@click.argument("methods", nargs=-1, required=True)
@board_options
@click.option("--attack", default="union", show_default=True, help="clean, an attack of the suite, or union.")
@click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Two methods are equivalent if they are shown to differ by less.",
)
@results_dir_option
@records_option
@click.pass_context
def compare(
    context: click.Context,
    methods: tuple[str, ...],
    attack: str,
    margin: float,
    results_dir: Path,
    records_dirs: tuple[Path, ...],
    **board_terms: Any,
) -> None:
    """Whether methods differ: the first against each of the others, image by image, seed by seed.

    Names are those of the leaderboard, for instance 'robal (variant=N)'. Exact McNemar test per seed pair (the largest
    p-value counts), Holm's correction over the methods, in each group of classes by itself, and an interval: the wider
    of that over the seed pairs and that over the images. 'equivalent' is a
    statement of its own (two one-sided tests, TOST, at 5 %), not the lack of a difference.
    """
    from rich.table import Table

    from ltrobust_bench.report import find_board
    from ltrobust_bench.report.aggregate import entries_called
    from ltrobust_bench.report.compare import compare as differences

    board, problems = find_board(records_dirs or (results_dir / "records",), **board_terms)
    found = differences([(e.label, e.runs) for e in entries_called(board, methods, attack)], attack, margin / 100)
    out = console()
    out.print(f"{board.title}; accuracy under {attack}, points", style="bold")
    for (first, second), groups in groupby(found, key=lambda d: (d.first, d.second)):
        table = Table(box=None, title_justify="left")
        for name in ("", "difference", "95 % interval", "p", "p (Holm)", "p (equal)", ""):
            table.add_column(name, no_wrap=name == "95 % interval")
        table.title = f"{first} - {second}"
        for d in groups:
            low, high = (100 * bound for bound in d.interval)
            table.add_row(
                d.group,
                f"{100 * d.difference:+.1f}",
                f"{low:+.1f} to {high:+.1f}",
                f"{d.p_value:.3g}",
                f"{d.p_holm:.3g}",
                f"{d.p_equal:.3g}",
                d.verdict,
            )
        out.print(table)
    for message in [*problems, *board.messages]:
        out.print(f"note: {message}", style="yellow")
    seeds = {d.seeds for d in found}
    for paired in sorted(seeds):
        out.print(f"seeds paired: {', '.join(map(str, paired))}", style="dim")
    if any(len(paired) < 3 for paired in seeds):
        out.print("note: fewer than 3 seeds; a difference between runs is not yet one between methods", style="yellow")
    context.exit(1 if problems else 0)
