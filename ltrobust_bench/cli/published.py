"""``ltbench report published``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltrobust_bench.cli.shared import console, results_dir_option
from ltrobust_bench.cli.words import echo

if TYPE_CHECKING:
    from rich.table import Table

    from ltrobust_bench.report.published_tables import Block


@click.command(name="published", epilog="Example: ltbench report published --dataset cifar10-lt --metric pgd20")
@click.option("--dataset", "-d", help="Numbers of this data set only.")
@click.option("--method", "-m", help="Numbers of this method or plug-in only, by our name or the paper's.")
@click.option("--metric", help="This metric only, or those of a pattern such as 'tail_*'.")
@click.option("--format", "form", type=click.Choice(["markdown", "csv"]), help="Instead of tables for the terminal.")
@results_dir_option
@click.pass_context
def command(
    context: click.Context,
    dataset: str | None,
    method: str | None,
    metric: str | None,
    form: str | None,
    results_dir: Path,
) -> None:
    """What papers report, by data set, imbalance ratio and network, with its source and kind; ours beside it.

    The numbers are read from the folder published of --results-dir. Numbers of single classes are shown if --metric
    asks for them, or as CSV. Nothing here is ranked.

    Exit codes: 0 nothing wrong, 1 a file or record is wrong (the rest is shown), 2 wrong usage.
    """
    from rich.padding import Padding

    from ltrobust_bench.report.published import beside, read_published, select
    from ltrobust_bench.report.published_tables import LEGEND, about_ours, blocks, markdown, to_csv

    numbers, problems = read_published(results_dir / "published")
    fitting = select(numbers, dataset, method, metric)
    chosen = fitting if metric or form == "csv" else [n for n in fitting if not n.of_one_class]
    ours, damaged = beside(chosen, results_dir / "records")
    found, out = blocks(chosen, ours), console()
    if form == "csv":
        echo(to_csv(chosen, ours), nl=False)
    elif form == "markdown":
        echo(markdown(found), nl=False)
    else:
        setting = None
        for block in found:
            if block.setting != setting:
                setting = block.setting
                out.print(setting, style="bold")
            out.print(_table(block))
            for link in block.sources:
                out.print(f"  {link}", style="dim")
            if block.notes:
                out.print(Padding("\n".join(f"- {note}" for note in block.notes) + "\n", (0, 2)), style="dim")
        out.print(LEGEND if found else "no published number fits", style="dim")
        for line in about_ours(found):
            out.print(line, style="dim")
    if len(chosen) < len(fitting):
        left_out = len(fitting) - len(chosen)
        echo(f"{left_out} numbers of single classes are left out; --metric '*_class_*' shows them", err=True)
    for problem in [*map(str, problems), *damaged]:
        echo(problem, err=True)
    context.exit(1 if problems or damaged else 0)


def _table(block: Block) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ltrobust_bench.report.published_tables import HEADER

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", title_style="")
    table.title = f"{block.kind}: {block.paper}, {block.where}"
    for name in HEADER:
        table.add_column(
            name,
            justify="right" if name in ("published", "ours") else "left",
            overflow="fold",
            no_wrap=name in ("metric", "published"),
        )
    for row in block.rows():
        table.add_row(*map(Text, row))
    return table
