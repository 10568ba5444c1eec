"""``ltbench data``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltrobust_bench.cli.completion import names_of
from ltrobust_bench.cli.shared import PATH, console, data_dir_option, split_options
from ltrobust_bench.cli.words import echo

if TYPE_CHECKING:
    from ltrobust_bench.plan.task import Task


@click.group(name="data")
def command() -> None:
    """Look at data sets, download them, and carry them to machines that cannot."""


@command.command(
    epilog="""\b
    Example: ltbench data info cifar10-lt --imbalance-ratio 50
             ltbench data info folder:photos/@64"""
)
@click.argument("dataset", shell_complete=names_of("datasets"))
@split_options
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def info(
    dataset: str,
    as_json: bool,
    protocol: str | None,
    imbalance_ratio: float | None,
    profile: str | None,
    data_dir: Path | None,
) -> None:
    """Counts per class, groups, index digests, and the profile as bars."""
    from rich.table import Table

    from ltrobust_bench.plan.task import make_task
    from ltrobust_bench.scores.groups import rank_groups

    task = make_task(dataset, protocol=protocol, imbalance_ratio=imbalance_ratio, profile=profile, data_dir=data_dir)
    counts, out = task.split.train_counts, console()
    if as_json:
        echo(_as_json(task))
        return
    group_of = {int(c): name for name, members in rank_groups(counts).items() for c in members}
    out.print(
        f"{task.spec.name}: {sum(counts)} training images in {len(counts)} classes, imbalance ratio "
        f"{task.imbalance_ratio:g} ({task.profile}), {sum(task.split.test_counts)} test images, "
        f"{'x'.join(map(str, task.spec.shape))} pixels",
    )
    for note in task.source.notes:
        out.print(note)
    for warning in task.source.warnings:
        out.print(warning, style="yellow")
    mark = "█" if out.encoding.startswith("utf") else "#"
    table = Table("label", "class", "group", "train", "test", "profile", box=None, pad_edge=False)
    for label, count in enumerate(counts):
        bar = mark * max(1, round(40 * count / max(counts)))
        name = task.source.class_names[label]
        table.add_row(str(label), name, group_of.get(label, "-"), str(count), str(task.split.test_counts[label]), bar)
    out.print(table)
    out.print(f"training indices, SHA-256 class by class: {task.split.train_sha256}")
    out.print(f"training indices, SHA-256 sorted:         {task.split.train_sha256_sorted}")
    out.print(f"test indices, SHA-256:                    {task.split.test_sha256}")
    if task.source.sha256:
        out.print(f"files, SHA-256:                           {task.source.sha256}")


def _as_json(task: Task) -> str:
    import json

    source, split = task.source, task.split
    return json.dumps(
        {
            "dataset": task.spec.name,
            "shape": task.spec.shape,
            "imbalance_ratio": task.imbalance_ratio,
            "profile": task.profile,
            "protocol": task.protocol.name,
            "classes": list(source.class_names),
            "train_counts": split.train_counts,
            "test_counts": split.test_counts,
            "train_sha256": split.train_sha256,
            "train_sha256_sorted": split.train_sha256_sorted,
            "test_sha256": split.test_sha256,
            "source_sha256": source.sha256,
            "notes": source.notes,
            "warnings": source.warnings,
        },
        indent=1,
    )


@command.command(epilog="Example: ltbench data prepare cifar10-lt --data-dir data")
@click.argument("dataset", shell_complete=names_of("datasets"))
@click.option(
    "--data-dir",
    type=PATH,
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
    if not spec.folder:
        echo(f"{dataset} comes with the package; nothing to fetch.")
        return
    make_folder(data_dir)
    try:
        source = load_source(spec, data_dir)
    except DataError:
        fetch(dataset, data_dir)
        source = load_source(spec, data_dir)
    echo(f"{dataset} is ready in {data_dir}: {len(source.train_labels)} + {len(source.test_labels)} images.")


@command.command(epilog="Example: ltbench data pack cifar10-lt --imbalance-ratio 50 cifar10-lt-ir50.zip")
@click.argument("dataset", shell_complete=names_of("datasets"))
@click.argument("file", type=PATH)
@split_options
@data_dir_option
@click.option(
    "--limit-test",
    type=click.IntRange(1),
    metavar="N",
    help="Only the first N/C test images of each class: a smaller file.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def pack(
    dataset: str,
    file: Path,
    protocol: str | None,
    imbalance_ratio: float | None,
    profile: str | None,
    data_dir: Path | None,
    limit_test: int | None,
    force: bool,
) -> None:
    """Write the split's training images and the whole test set into one FILE, without loss.

    Every command takes FILE where it takes the data folder (--data-dir or LTBENCH_DATA), and gives the same digests. It
    also serves splits whose images it holds: larger imbalance ratios of the same profile. With --limit-test it serves
    trainings, and evaluations on no more test images.
    """
    from ltrobust_bench.data import archive
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.plan.task import make_task

    if file.exists() and (file.is_dir() or not force):
        raise UsageError(f"{file} exists already; name another file" + (", or add --force." if file.is_file() else "."))
    task = make_task(
        dataset,
        protocol=protocol,
        imbalance_ratio=imbalance_ratio,
        profile=profile,
        limit_test=limit_test,
        data_dir=data_dir,
    )
    manifest = archive.write(
        file,
        task.spec.name,
        task.source,
        task.split,
        imbalance_ratio=task.imbalance_ratio,
        profile=task.profile,
        tested=None if limit_test is None else task.split.test,
    )
    echo(
        f"{file}: {manifest.train_images} training and {manifest.test_images} test images of {manifest.dataset} "
        f"(imbalance ratio {manifest.imbalance_ratio:g}, {manifest.profile}), {file.stat().st_size / 1e6:.1f} MB"
    )


@command.command(
    epilog="""\b
    Example: ltbench data declare cifar10-lt generated.npz --kind generated --saw split --share 0.3
             --maker "DDPM trained on the split, 50k steps" """
)
@click.argument("dataset")
@click.argument("file", type=PATH)
@click.option(
    "--kind", type=click.Choice(["real", "generated", "pseudo-labelled"]), required=True, help="What they are."
)
@click.option(
    "--saw",
    type=click.Choice(["nothing", "split", "balanced", "unknown"]),
    required=True,
    help="What of DATASET the images, their generator or their labeller come from: the long-tailed split alone, or the "
    "full balanced training set, which brings back what the cut took from the tail.",
)
@click.option("--maker", required=True, help="Generator, labeller, or where real images are from, in a line.")
@click.option("--share", type=float, required=True, help="Of each training batch, above 0 and below 1.")
@click.option("--force", is_flag=True, help="Replace a declaration that is there.")
@data_dir_option
def declare(
    dataset: str, file: Path, kind: str, saw: str, maker: str, share: float, force: bool, data_dir: Path | None
) -> None:
    """Declare the images in FILE as extra training data for DATASET: writes FILE's name with .toml, for --extra-data.

    FILE is an .npz with `images` (uint8, [M, C, H, W] or [M, H, W, C]) and `labels` ([M]), or an archive of `data
    pack`. Images that are test images of DATASET are refused. What is stated is part of every run with them.
    """
    from ltrobust_bench.data import extra
    from ltrobust_bench.data.registry import locate
    from ltrobust_bench.data.sources import load_source
    from ltrobust_bench.errors import UsageError

    if not file.is_file():
        raise UsageError(f"there is no file {file}.")
    output = file.with_suffix(".toml")
    if output.exists() and not force:
        raise UsageError(f"{output} exists already; rename {file.name}, or add --force.")
    spec, place = locate(dataset, data_dir)
    source = load_source(spec, place)
    declared = extra.declare(file, output, source, spec.shape, kind=kind, saw=saw, maker=maker, share=share)  # type: ignore[arg-type]
    echo(f"{output}: {kind}, {100 * share:g} % of each batch, saw {saw}; images and labels {declared.sha256[:12]}")
    echo(f"ltbench run --method at --dataset {dataset} --extra-data {output}")


@command.command(epilog="Example: ltbench data verify cifar10-lt-ir50.zip")
@click.argument("file", type=PATH)
@click.pass_context
def verify(context: click.Context, file: Path) -> None:
    """Check every byte, every pixel and the split of an archive; leaves with code 1 if something is wrong."""
    from ltrobust_bench.data import archive
    from ltrobust_bench.errors import DataError, UsageError

    if not file.is_file():
        raise UsageError(f"there is no file {file}.")
    try:
        manifest = archive.verify(file)
    except DataError as error:
        echo(f"error: {error}", err=True)
        context.exit(1)
    echo(
        f"{file} is sound: {manifest.dataset}, imbalance ratio {manifest.imbalance_ratio:g} ({manifest.profile}), "
        f"{manifest.train_images} training and {manifest.test_images} test images; {manifest.made_by}"
    )
    echo(f"training indices, SHA-256 class by class: {manifest.train_index_sha256}")
    if manifest.test_index_sha256:
        echo(f"test indices, SHA-256:                    {manifest.test_index_sha256}")
    echo(f"pixels, SHA-256:                          {manifest.pixels_sha256}")
