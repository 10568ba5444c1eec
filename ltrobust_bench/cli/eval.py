"""``ltbench eval``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltrobust_bench.cli.shared import (
    FOLDER,
    console,
    data_dir_option,
    device_option,
    metrics_table,
    progress_on,
    results_dir_option,
    set_threads,
    threads_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ltrobust_bench.evaluation.curves import Curve, CurveKind


@click.command(
    epilog="Example: ltbench eval runs/at-digits-lt-ir20-small-s0-1a2b3c4d. With --attack or --limit-test "
    "the result is only printed."
)
@click.argument("checkpoint", type=FOLDER)
@click.option("--dataset", "-d", help="Refuse a network of another data set.")
@click.option(
    "--attack",
    "-a",
    "attacks",
    multiple=True,
    help="Only this attack: of the suite, or apgd-ce, apgd-dlr, apgd-t, fab-t, square; repeatable.",
)
@click.option(
    "--transfer-from", type=FOLDER, metavar="CHECKPOINT", help="Attack with PGD-20 crafted on another network."
)
@click.option(
    "--curve",
    "curves",
    type=click.Choice(["eps", "steps"]),
    multiple=True,
    help="Robust accuracy along the radius or the number of PGD steps, as CSV and figure; repeatable.",
)
@click.option("--output", type=FOLDER, help="Where curves are written (default: the run folder).")
@click.option("--limit-test", type=int, metavar="N", help="First N/C test images of each class.")
@click.option("--again", is_flag=True, help="Attack again although there is a record.")
@data_dir_option
@device_option
@threads_option
@results_dir_option
def command(
    checkpoint: Path,
    dataset: str | None,
    attacks: tuple[str, ...],
    transfer_from: Path | None,
    curves: tuple[CurveKind, ...],
    output: Path | None,
    limit_test: int | None,
    again: bool,
    data_dir: Path | None,
    device: str,
    threads: int | None,
    results_dir: Path,
) -> None:
    """Attack a finished network of ours: a run folder, or its model.safetensors."""
    from ltrobust_bench import bench
    from ltrobust_bench.cli.run import print_record
    from ltrobust_bench.errors import CheckpointError

    set_threads(threads)
    out = console()
    if curves:
        for kind in curves:
            with progress_on(out) as progress:
                drawn = bench.curve(
                    checkpoint,
                    kind,
                    dataset,
                    limit_test=limit_test,
                    data_dir=data_dir,
                    device=device,
                    progress=progress,
                )
            print_curve(out, drawn, output or (checkpoint if checkpoint.is_dir() else checkpoint.parent))
        return
    if attacks or transfer_from is not None or limit_test is not None:
        with progress_on(out) as progress:
            result = bench.evaluate(
                checkpoint,
                dataset,
                attacks=list(attacks),
                transfer_from=transfer_from,
                limit_test=limit_test,
                data_dir=data_dir,
                device=device,
                progress=progress,
            )
        rows = {a: result.metrics(a) for a in ("clean", *result.attacks, "union")}
        out.print(metrics_table(f"{checkpoint} (part of the suite, no record)", rows, len(result.labels)))
        return
    loaded = bench.load_model(checkpoint, device=device)
    if dataset is not None and dataset != loaded.run.dataset:
        raise CheckpointError(f"{checkpoint} was trained on {loaded.run.dataset}, not on {dataset}.")
    # A network outside its run folder has nowhere to keep state and record: its record is only filed.
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    own = folder if folder.name == loaded.run.folder_name() else None
    task = bench.task_of(loaded.run, data_dir)
    with progress_on(out) as progress:
        record = bench.finish_run(loaded, task, own, results_dir, progress, again=again)
    print_record(out, record, own)


def print_curve(out: Console, curve: Curve, folder: Path) -> None:
    """A curve as a table, and as CSV and figure in a folder."""
    from rich.table import Table

    from ltrobust_bench.evaluation.curves import GROUPS
    from ltrobust_bench.files import make_folder, write_text
    from ltrobust_bench.report.figures import curve_figure, save

    make_folder(folder)
    table = Table("radius" if curve.kind == "eps" else "steps", *GROUPS, box=None)
    for x, point in zip(curve.x, curve.points, strict=True):
        table.add_row(f"{x:.4g}", *(f"{100 * float(getattr(point, g)):.1f}" for g in GROUPS))
    out.print(table)
    path = folder / f"curve-{curve.kind}.csv"
    write_text(path, curve.csv())
    for written in (path, *save(curve_figure(curve), folder / f"curve-{curve.kind}")):
        out.print(f"wrote {written}", soft_wrap=True)
