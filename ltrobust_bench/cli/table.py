"""``ltbench report table``"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from ltrobust_bench.cli.shared import PATH, board_options, print_or_write, records_option, results_dir_option
from ltrobust_bench.cli.words import echo


def listed(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """Names given one by one or separated by commas; commas inside brackets belong to the name."""
    return [name.strip() for value in values for name in re.split(r",(?![^(]*\))", value) if name.strip()]


@click.command(
    name="table",
    epilog="Example: ltbench report table --dataset digits-lt --methods at,reat --groups head,tail --format latex",
)
@board_options
@click.option(
    "--methods", multiple=True, callback=listed, metavar="NAMES", help="Entries as the board calls them, in this order."
)
@click.option("--columns", multiple=True, callback=listed, metavar="NAMES", help="clean, attacks of the suite, union.")
@click.option(
    "--groups",
    multiple=True,
    callback=listed,
    metavar="NAMES",
    help="all, head, medium, tail, worst_class, worst_tenth; shown for each column.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "latex", "csv", "json", "bibtex"]),
    default="markdown",
    show_default=True,
)
@click.option(
    "--prior",
    metavar="PRIOR",
    help="Weigh all classes as train (as the training images), uniform, reversed or a FILE of one number per class "
    "says, with intervals; ranks stay balanced.",
)
@click.option("--decimals", type=click.IntRange(0, 4), default=1, show_default=True)
@click.option("--std/--no-std", default=True, show_default=True, help="Standard deviations over seeds.")
@click.option(
    "--names", type=click.Choice(["board", "paper"]), default="board", show_default=True, help="robal, or RoBal."
)
@click.option(
    "--width", type=click.Choice(["column", "page"]), help="LaTeX: what it must fit (default: column if it can)."
)
@click.option("--label", metavar="NAME", help="LaTeX: instead of tab:BOARD.")
@click.option("--caption", metavar="TEXT", help="LaTeX: instead of the one that states the terms; taken as it is.")
@click.option("--output", "-o", type=PATH, metavar="FILE", help="Write it here instead of printing it.")
@results_dir_option
@records_option
@click.pass_context
def command(
    context: click.Context,
    methods: list[str],
    columns: list[str],
    groups: list[str],
    form: Any,
    prior: str | None,
    decimals: int,
    std: bool,
    names: Any,
    width: Any,
    label: str | None,
    caption: str | None,
    output: Path | None,
    results_dir: Path,
    records_dirs: tuple[Path, ...],
    **board_terms: Any,
) -> None:
    """A board, or a part of it, as a paper prints it.

    Lists take names separated by commas. LaTeX needs the package booktabs, and longtable above 45 entries; its first
    line says how wide the table is, measured, and its text is as small as the width asks. Best means are bold, second
    ones underlined, both among ranked entries, and \\cite keys are those of --format bibtex. Leaves with code 1
    if a file was no valid record; the table is made from the others.
    """
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.report import find_board
    from ltrobust_bench.report.latex import Options
    from ltrobust_bench.report.paper import paper_table, render

    if form != "latex" and (width or label or caption):
        raise UsageError("--width, --label and --caption are of --format latex.")

    board, problems = find_board(records_dirs or (results_dir / "records",), **board_terms)
    table = paper_table(board, methods, columns, groups, decimals, prior, names, std)
    print_or_write(render(table, form, Options(width, label, caption)), output)
    for message in [*problems, *board.messages]:
        echo(f"note: {message}", err=True)
    context.exit(1 if problems else 0)
