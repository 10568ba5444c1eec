"""``ltbench report figures``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ltrobust_bench.cli.shared import PATH, board_options, records_option, results_dir_option, runs_dir_option
from ltrobust_bench.cli.table import listed
from ltrobust_bench.cli.words import echo

KINDS = (
    "per_class",
    "heat_map",
    "groups",
    "tradeoff",
    "head_tail",
    "seeds",
    "ranks",
    "published",
    "eps",
    "steps",
    "training",
)


@click.command(
    name="figures",
    epilog="Example: ltbench report figures tradeoff head_tail --dataset digits-lt --output figures",
)
@click.argument("kinds", nargs=-1, metavar="[KIND]...", type=click.Choice(KINDS))
@board_options
@click.option(
    "--methods", multiple=True, callback=listed, metavar="NAMES", help="Entries as the board calls them, in this order."
)
@click.option("--column", type=click.Choice(["single", "double"]), help="Width (default: what suits the kind).")
@click.option("--output", "-o", type=PATH, help="Folder to write to (default: figures/BOARD in --results-dir).")
@runs_dir_option
@results_dir_option
@records_option
@click.pass_context
def command(
    context: click.Context,
    kinds: tuple[str, ...],
    methods: list[str],
    column: Any,
    output: Path | None,
    runs_dir: Path,
    results_dir: Path,
    records_dirs: tuple[Path, ...],
    **board_terms: Any,
) -> None:
    """Figures of a board, and of runs under its terms, as PNG, SVG and PDF; without KIND all that can be drawn.

    \b
    per_class  clean and worst-case accuracy of every class, entry by entry
    heat_map   worst-case accuracy of every class, entries in rows
    groups     the same as per_class of head, medium and tail
    tradeoff   worst case against clean accuracy, with the Pareto front
    head_tail  worst case of the tail against that of the head
    seeds      every seed, mean and interval
    ranks      places by clean accuracy, by AutoAttack, by AutoAttack on the tail
    published  what papers report, and ours
    eps        accuracy along the radius, from `ltbench eval RUN --curve eps`
    steps      accuracy along the steps of PGD, from `ltbench eval RUN --curve steps`
    training   loss and training accuracy over the epochs

    An entry has one colour and mark in all figures of its board. Without --methods the best entries are named, and AT
    and TRADES; with it all that are named, on more pages where one has no room (groups-2).

    The first eight are drawn from records, the others from run folders. Leaves with code 1 if a file could not be read;
    the figures are drawn from the others.
    """
    from ltrobust_bench.report.figures.kinds import draw_kinds

    drawn = draw_kinds(
        kinds, results_dir, runs_dir, records=records_dirs, output=output, names=methods, column=column, **board_terms
    )
    for stem in drawn.written:
        echo(f"wrote {stem}.png, .svg and .pdf")
    for kind, reason in drawn.left_out.items():
        echo(f"left out {kind}: {reason}")
    for message in dict.fromkeys(drawn.problems + drawn.notes):
        echo(f"note: {message}", err=True)
    context.exit(1 if drawn.problems else 0)
