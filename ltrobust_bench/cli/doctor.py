"""``ltbench doctor``"""

from __future__ import annotations

import json
from pathlib import Path

import click

from ltrobust_bench.cli.shared import data_dir_option, results_dir_option, runs_dir_option
from ltrobust_bench.cli.words import echo


@click.command(epilog="Example: ltbench doctor > report.txt, and paste it into the bug report")
@data_dir_option
@runs_dir_option
@results_dir_option
@click.option("--no-data", is_flag=True, help="Look for data sets, but do not read them (large ones take minutes).")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def command(
    context: click.Context, data_dir: Path | None, runs_dir: Path, results_dir: Path, no_data: bool, as_json: bool
) -> None:
    """What a bug report needs: versions, devices, folders, data sets with their digests; and what is wrong.

    Exit codes: 0 nothing is wrong, 1 problems were found, each in one line with what to do.
    """
    from ltrobust_bench.doctor.examination import examine

    found = examine(data_dir=data_dir, runs_dir=runs_dir, results_dir=results_dir, read=not no_data)
    echo(json.dumps(found.plain(), indent=1) if as_json else found.text())
    context.exit(1 if found.problems else 0)
