"""``ltbench report analyse``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltrobust_bench.cli.following import Follow, followed_in_logs
from ltrobust_bench.cli.shared import (
    PATH,
    console,
    data_dir_option,
    device_option,
    progress_on,
    set_threads,
    threads_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ltrobust_bench.evaluation.analysis import Analysis


@click.command(name="analyse", epilog="Example: ltbench report analyse runs/reat-digits-lt-ir20-small-s0-1a2b3c4d")
@click.argument("run", type=PATH)
@click.option("--output", type=PATH, help="Where to write (default: analysis/ in the run folder).")
@click.option("--limit-test", type=int, metavar="N", help="First N/C test images of each class; uses no record.")
@data_dir_option
@device_option
@threads_option
@followed_in_logs
def command(
    run: Path,
    output: Path | None,
    limit_test: int | None,
    data_dir: Path | None,
    device: str,
    threads: int | None,
    follow: Follow,
) -> None:
    """What one finished network does class by class: a run folder, or its model.safetensors.

    Writes errors (natural and boundary), confusion (what attacked images are taken for), norms (of features and class
    vectors) and margins (of clean and attacked images), each as CSV and figure. Errors are those of the worst case over
    the suite if the run has its record; all else under attack is under the protocol's first PGD attack.
    """
    from ltrobust_bench import verbs
    from ltrobust_bench.files import is_there, make_folder
    from ltrobust_bench.report.analysis_figures import write

    set_threads(threads)
    out = console()
    folder = output or (run if run.is_dir() else run.parent) / "analysis"
    if is_there(run / "model.safetensors" if run.is_dir() else run):
        make_folder(folder)  # that it can be written must not turn out after the attack
    with progress_on(out, follow) as progress:
        analysis = verbs.analyse(run, limit_test=limit_test, data_dir=data_dir, device=device, progress=progress)
    print_analysis(out, analysis)
    written = write(analysis, folder)
    for stem in dict.fromkeys(path.stem for path in written):
        endings = ",".join(path.suffix[1:] for path in written if path.stem == stem)
        out.print(f"wrote {folder / stem}.{{{endings}}}")


def print_analysis(out: Console, analysis: Analysis) -> None:
    """An analysis by group of classes, and what it rests on."""
    from rich.table import Table

    from ltrobust_bench.evaluation.analysis import QUANTILES, UNION
    from ltrobust_bench.report.aggregate import method_label

    run, errors, confusion, norms = analysis.run, analysis.errors, analysis.confusion, analysis.norms
    classes, margins, attack, median = errors.classes, analysis.margins, confusion.attack, QUANTILES.index(0.5)
    columns = {
        "natural\nerror": (100 * errors.natural, 1),
        "boundary\nerror": (100 * errors.boundary, 1),
        **{f"to\n{name}": (100 * share, 1) for name, share in confusion.ends.items()},
        "margin\nclean": (margins.clean[:, median], 2),
        f"margin\n{attack}": (margins.attacked[:, median], 2),
    }
    if norms is not None:
        vectors = norms.head.stored if norms.head.deployed is None else norms.head.deployed
        columns["feature\nnorm"] = (norms.feature, 2)
        if vectors is not None:
            columns["vector\nnorm"] = (vectors, 2)
    table = Table(box=None, padding=(0, 1, 0, 0), title_justify="left", caption_justify="left")
    table.title = f"{method_label(run)} on {run.dataset}, seed {run.seed}"
    table.caption = "means over classes; errors and ends (to head, ...) in %, median margins in logits"
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    means = {name: classes.means(values) for name, (values, _) in columns.items()}
    for group in ["all", *classes.groups]:
        table.add_row(group, *(f"{means[name][group]:.{digits}f}" for name, (_, digits) in columns.items()))
    out.print(table)
    suite = "the worst case over the suite, from the run's record" if errors.attack == UNION else f"{attack} alone"
    lines = [f"errors: under {suite}; all else under attack: under {attack}"]
    if norms is None:
        lines.append("norms: none, since the deployed model has no one backbone")
    else:
        lines.append(norms.head.note)
    takers = ", ".join(f"{classes.names[c]} ({100 * share:.1f} %)" for c, share in confusion.takers()[:5])
    if classes.groups:
        lines.append(f"tail images are taken, outside the tail, for: {takers or 'nothing'}")
    for line in lines:
        out.print(line)
