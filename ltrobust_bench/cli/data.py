"""``ltbench data``"""

from __future__ import annotations

from pathlib import Path

import click

from ltrobust_bench.cli.shared import FOLDER, console, data_dir_option, split_options


@click.group(name="data")
def command() -> None:
    """Look at data sets and download them."""


@command.command(epilog="Example: ltbench data info cifar10-lt --imbalance-ratio 50")
@click.argument("dataset")
@split_options
@data_dir_option
def info(
    dataset: str,
    protocol: str | None,
    imbalance_ratio: float | None,
    profile: str | None,
    data_dir: Path | None,
) -> None:
    """Counts per class, groups, index digests, and the profile as bars."""
    from rich.table import Table

    from ltrobust_bench.evaluation.groups import rank_groups
    from ltrobust_bench.plan import make_task

    task = make_task(dataset, protocol=protocol, imbalance_ratio=imbalance_ratio, profile=profile, data_dir=data_dir)
    counts, out = task.split.train_counts, console()
    group_of = {int(c): name for name, members in rank_groups(counts).items() for c in members}
    out.print(
        f"{dataset}: {sum(counts)} training images in {len(counts)} classes, imbalance ratio "
        f"{task.imbalance_ratio:g} ({task.profile}), {sum(task.split.test_counts)} test images, "
        f"{'x'.join(map(str, task.spec.shape))} pixels"
    )
    table = Table("label", "class", "group", "train", "test", "profile", box=None, pad_edge=False)
    for label, count in enumerate(counts):
        bar = "█" * max(1, round(40 * count / max(counts)))
        name = task.source.class_names[label]
        table.add_row(str(label), name, group_of.get(label, "-"), str(count), str(task.split.test_counts[label]), bar)
    out.print(table)
    out.print(f"training indices, SHA-256 class by class: {task.split.train_sha256}", soft_wrap=True)
    out.print(f"training indices, SHA-256 sorted:         {task.split.train_sha256_sorted}", soft_wrap=True)
    out.print(f"test indices, SHA-256:                    {task.split.test_sha256}", soft_wrap=True)


@command.command(epilog="Example: ltbench data prepare cifar10-lt --data-dir data")
@click.argument("dataset")
@click.option(
    "--data-dir",
    type=FOLDER,
    envvar="LTBENCH_DATA",
    required=True,
    help="Where to put it.  [env: LTBENCH_DATA]",
)
def prepare(dataset: str, data_dir: Path) -> None:
    """Download a data set (with checksums), unless it is there already."""
    from ltrobust_bench.data.registry import datasets
    from ltrobust_bench.data.sources import load_source
    from ltrobust_bench.data.sources import prepare as fetch
    from ltrobust_bench.errors import DataError
    from ltrobust_bench.files import make_folder

    spec = datasets.get(dataset)
    if not spec.prepare:
        click.echo(f"{dataset} comes with the package; nothing to fetch.")
        return
    make_folder(data_dir)
    try:
        source = load_source(spec, data_dir)
    except DataError:
        fetch(dataset, data_dir)
        source = load_source(spec, data_dir)
    click.echo(f"{dataset} is ready in {data_dir}: {len(source.train_labels)} + {len(source.test_labels)} images.")
