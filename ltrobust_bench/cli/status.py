"""``ltbench status``"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltrobust_bench.cli.shared import PATH, console, data_dir_option, results_dir_option, runs_dir_option
from ltrobust_bench.cli.words import echo

if TYPE_CHECKING:
    from rich.console import Group

    from ltrobust_bench.sweeps.states import Seen

STYLES = {"running": "green", "failed": "red", "lost": "yellow", "stopped": "yellow", "done": "dim"}
PERIOD = 5.0


@click.command(
    epilog="""\b
    Example: ltbench status plan.toml --watch

    States are read off the disk: they are right after any crash, and for jobs of other machines that share it. Stopped
    and lost jobs go on where they were when a sweep starts them."""
)
@click.argument("plan", type=PATH, required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object of all jobs.")
@click.option("--watch", is_flag=True, help=f"Look again every {PERIOD:g} seconds, until all is done.")
@click.option("--most", type=click.IntRange(0), default=40, show_default=True, help="Jobs in the table.")
@data_dir_option
@runs_dir_option
@results_dir_option
def command(
    plan: Path | None,
    as_json: bool,
    watch: bool,
    most: int,
    data_dir: Path | None,
    runs_dir: Path,
    results_dir: Path,
) -> None:
    """How far the jobs of a PLAN are; without one, what lies in the folder of runs."""
    look = _looking(plan, data_dir, runs_dir, results_dir)
    if as_json:
        seen = look()
        counts = Counter(one.state for one in seen)
        echo(json.dumps({"counts": dict(counts), "jobs": [one.to_json() for one in seen]}, indent=1))
        return
    out = console()
    if not watch:
        out.print(table(look(), most))
        return
    from rich.live import Live

    with Live(console=out, auto_refresh=False) as live:
        while True:
            seen = look()
            live.update(table(seen, most), refresh=True)
            if all(one.state in ("done", "failed") for one in seen):
                return
            time.sleep(PERIOD)


def _looking(plan: Path | None, data_dir: Path | None, runs_dir: Path, results_dir: Path) -> Callable[[], list[Seen]]:
    """What looks at the disk; the plan is read once."""
    from ltrobust_bench.sweeps.states import OnDisk, states_in, states_of

    if plan is None:
        return lambda: states_in(runs_dir)
    from ltrobust_bench.executors.base import Place
    from ltrobust_bench.sweeps.jobs import pieces_of
    from ltrobust_bench.sweeps.plan import read_plan

    place = Place(runs_dir=runs_dir.absolute(), results_dir=results_dir.absolute(), data_dir=data_dir)
    pieces = pieces_of(read_plan(plan).requests(), place)
    return lambda: states_of(pieces, OnDisk())


def table(seen: list[Seen], most: int) -> Group:
    """What is not done, job by job, what matters most first; and how many there are of each state."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from ltrobust_bench.sweeps.states import STATES

    counts = Counter(one.state for one in seen)
    shown = sorted((one for one in seen if one.state != "done"), key=lambda one: STATES.index(one.state))
    rows = Table("state", box=None, padding=(0, 2, 0, 0))
    for name in ("job", ""):
        rows.add_column(name, overflow="fold")  # a narrow terminal folds names, and cuts none
    for one in shown[:most]:
        rows.add_row(Text(one.state, style=STYLES.get(one.state, "")), Text(one.id), Text(one.text))
    more = [Text(f"and {len(shown) - most} more")] if len(shown) > most else []
    total = Text(", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no jobs")
    return Group(*([rows] if shown[:most] else []), *more, total)
