"""``ltbench report campaign``"""

from __future__ import annotations

from pathlib import Path

import click

from ltrobust_bench.cli.shared import PATH, records_option, results_dir_option
from ltrobust_bench.cli.words import echo


@click.command(name="campaign", epilog="Example: ltbench report campaign campaigns/cifar10-lite.toml")
@click.argument("plan", type=PATH)
@click.option("--output", "-o", type=PATH, metavar="FILE", help="Default: CAMPAIGN.md in the folder of results.")
@results_dir_option
@records_option
@click.pass_context
def command(
    context: click.Context, plan: Path, output: Path | None, results_dir: Path, records_dirs: tuple[Path, ...]
) -> None:
    """Write down which runs of a PLAN are done, on which machine and how long they took, and what remains.

    From records alone: `ltbench status PLAN` tells what is in hand at this moment. Leaves with code 1 if a file was no
    valid record.
    """
    from ltrobust_bench.files import write_text
    from ltrobust_bench.records.io import find_records
    from ltrobust_bench.report.campaign import campaign_page, planned_runs
    from ltrobust_bench.sweeps.plan import read_plan

    records, problems = find_records(records_dirs or (results_dir / "records",))
    runs = planned_runs(read_plan(plan).requests(), records)
    path = output or results_dir / "CAMPAIGN.md"
    write_text(path, campaign_page(plan.as_posix(), runs))
    echo(f"{sum(run.record is not None for run in runs)} of {len(runs)} runs are done; wrote {path}")
    for problem in problems:
        echo(problem, err=True)
    context.exit(1 if problems else 0)
