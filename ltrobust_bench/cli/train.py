"""``ltbench train``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ltrobust_bench.cli.devices import on_devices, repeatable
from ltrobust_bench.cli.following import Follow, followed
from ltrobust_bench.cli.run import print_plan
from ltrobust_bench.cli.shared import console, plan_options, progress_on, requests, set_threads


@click.command(
    epilog="Example: ltbench train --method at --dataset digits-lt, then ltbench eval on the run folder it prints."
)
@plan_options
@on_devices
@repeatable
@followed
def command(
    data_dir: Path | None,
    device: str,
    threads: int | None,
    fresh: bool,
    runs_dir: Path,
    follow: Follow,
    **asked: Any,
) -> None:
    """Train a defense, without attacking it."""
    from ltrobust_bench.compute.device import choose_device
    from ltrobust_bench.training.trainer import train_plan

    set_threads(threads)
    out, where = console(), choose_device(device)
    for plan in [request.to_plan(data_dir) for request in requests(out, where, **asked)]:
        print_plan(out, plan, where, runs_dir, follow.quiet)
        with progress_on(out, follow) as progress:
            result = train_plan(plan, runs_dir / plan.run.folder_name(), where, progress, fresh=fresh)
        if result.history:
            last = result.history[-1]
            out.print(
                f"loss {last['loss']:.4f}; on training images: clean {last['train_clean']:.1%}, "
                f"robust {last['train_robust']:.1%}"
            )
        out.print(f"network: {result.model_path}")
