"""``ltbench tune``"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltrobust_bench.cli.executing import all_executor_options, executor_options
from ltrobust_bench.cli.following import Follow, followed
from ltrobust_bench.cli.shared import (
    PATH,
    console,
    parse_settings,
    plain_table,
    progress_on,
    request_options,
    requests,
    set_threads,
)

if TYPE_CHECKING:
    from rich.table import Table

    from ltrobust_bench.verbs import Trials


@click.command(
    epilog="""\b
    Example: ltbench tune --method at-bsl --dataset digits-lt --grid tau=0.5,1,2
             ltbench tune --method at-bsl --dataset digits-lt --grid tau=0.5,1,2 --workers 2
             ltbench run --method at-bsl --dataset digits-lt --tuned trials.json

    Running the same command again goes on where an interrupted one stopped. Other values are added to the file, which
    keeps every trial."""
)
@click.option("--method", "-m", required=True, help="Defense.")
@click.option(
    "--grid", "grids", multiple=True, required=True, metavar="NAME=VALUE,VALUE", help="Values to try; repeatable."
)
@click.option(
    "--metric",
    default="pgd-20:tail",
    show_default=True,
    metavar="ATTACK:PART",
    help="What the best has most of: clean, an attack or union; balanced, head, medium, tail, worst_class, ...",
)
@click.option("--trials", type=int, metavar="N", help="Try N combinations, drawn at random (default: all).")
@click.option(
    "--at-most",
    type=click.IntRange(1),
    metavar="N",
    help="Settings that may be tried for the file of trials, which keeps the limit (default: its own, or 8).",
)
@click.option(
    "--executor",
    help="Have trials trained side by side, as `ltbench sweep` does: local, ray or slurm; --workers alone: local.",
)
@executor_options
@click.option("--output", type=PATH, default=Path("trials.json"), show_default=True, help="File of the trials.")
@request_options
@followed
def command(
    method: str,
    grids: tuple[str, ...],
    metric: str,
    trials: int | None,
    at_most: int | None,
    executor: str | None,
    output: Path,
    seeds: tuple[int, ...],
    data_dir: Path | None,
    device: str,
    threads: int | None,
    fresh: bool,
    runs_dir: Path,
    follow: Follow,
    **asked: Any,
) -> None:
    """Try settings on a tenth of each class's training images, which is held out. No test image is used."""
    from ltrobust_bench.compute.device import choose_device
    from ltrobust_bench.report.reproduce import asked_for
    from ltrobust_bench.verbs import tune

    set_threads(threads)
    out = console()
    workers = {name: asked.pop(name) for name in all_executor_options() if name in asked}
    (request,) = requests(out, choose_device(device), method_names=(method,), seeds=seeds[:1], **asked)
    with progress_on(out, follow) as progress:
        found = tune(
            request,
            grid={name: values.split(",") for name, values in parse_settings(grids, "--grid", "tau=0.5,1").items()},
            metric=metric,
            seeds=seeds,
            trials=trials,
            at_most=at_most,
            executor=executor,
            workers={name: value for name, value in workers.items() if value is not None},
            output=output,
            fresh=fresh,
            data_dir=data_dir,
            runs_dir=runs_dir,
            device=device,
            progress=progress,
        )
    out.print(_table(found))
    out.print(f"next: {shlex.join([*asked_for(request), '--tuned', str(output)])}", soft_wrap=True)


def _table(trials: Trials) -> Table:
    from ltrobust_bench.plan.run import combined

    table = plain_table(
        f"{combined(trials.method, trials.plugins)} on held-out training images of {trials.dataset}: {trials.metric}",
        "in %; interval: 95 %, Wilson for one seed, t over several; *: chosen",
    )
    for name in ("settings", "seeds", trials.metric, "interval", ""):
        table.add_column(name, justify="left" if name == "settings" else "right")
    for settings, seeds, spread in trials.table():
        known = float(spread.low) == float(spread.low)
        table.add_row(
            ", ".join(f"{name}={value}" for name, value in settings.items()),
            ", ".join(map(str, seeds)),
            f"{100 * float(spread.mean):.1f}",
            f"{100 * float(spread.low):.1f}-{100 * float(spread.high):.1f}" if known else "-",
            "*" if settings == trials.chosen else "",
        )
    return table
