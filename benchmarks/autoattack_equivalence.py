"""Is our AutoAttack the official one? One network and the same images through a plain call of pyautoattack and through
this benchmark's evaluation, compared image by image.

    python benchmarks/autoattack_equivalence.py --data-dir data

The network is the undefended CIFAR-10 ResNet-18 that comes with pyautoattack as an example; its weights are loaded into
our ResNet-18. At 8/255 nothing of it stands, so the radius is smaller.
"""

from __future__ import annotations

import csv
import io
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

from ltrobust_bench.attacks.autoattack import BROKEN_BY
from ltrobust_bench.cli.shared import (
    PATH,
    console,
    data_dir_option,
    device_option,
    progress_on,
    set_threads,
    threads_option,
)
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.data.registry import dataset_spec
from ltrobust_bench.data.sources import load_source
from ltrobust_bench.errors import LTBenchError, UsageError
from ltrobust_bench.evaluation.evaluator import evaluate_images, frozen
from ltrobust_bench.files import make_folder, write_text
from ltrobust_bench.interop.official import from_official
from ltrobust_bench.machine import device_name
from ltrobust_bench.numbers import number
from ltrobust_bench.progress import Progress, duration
from ltrobust_bench.protocol import Suite, load_protocol

SHIPPED = Path(str(find_spec("pyautoattack").origin)).parent / "examples" / "model_test.pt"  # type: ignore[union-attr]
STAGES = BROKEN_BY[1:]
STANDING, MISCLASSIFIED = "standing", "misclassified"
VERDICTS = (STANDING, *STAGES, MISCLASSIFIED)
"""What can become of an image: it stands, falls first to one of the attacks, or was misclassified from the start."""


def network(path: Path) -> nn.Module:
    """Our ResNet-18 for CIFAR-10 with the weights of ``model_test.pt``, in eval mode.

    Raises:
        UsageError: if there is no such file.
        CheckpointError: if it is damaged or holds other weights.
    """
    if not path.is_file():
        raise UsageError(
            f"no weights at {path}; without --weights those of the installed pyautoattack are taken, and `pip download "
            f"--no-deps pyautoattack==0.2.0` fetches a wheel, a zip file, with pyautoattack/examples/model_test.pt."
        )
    return from_official(path, "at", {}, [1] * 10, "cifar10-lt")


def official_verdicts(
    model: nn.Module, x: Tensor, y: Tensor, epsilon: float, suite: Suite, progress: Progress
) -> list[str]:
    """By a plain call of the package: AutoAttack's standard version, whose own state is only watched."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm="Linf", eps=epsilon, version="standard", seed=suite.seed, device=x.device)
    handed = [MISCLASSIFIED] * len(x)
    for name, part in zip(STAGES, (attack.apgd, attack.apgd_targeted, attack.fab, attack.square), strict=True):
        part.perturb = _watched(part.perturb, name, x, handed, progress)
    _, predicted = attack.run_standard_evaluation(x, y, batch_size=suite.batch_size)
    robust = (predicted == y).tolist()
    return [STANDING if stands else last for stands, last in zip(robust, handed, strict=True)]


def _watched(  # type: ignore[no-untyped-def]
    perturb, name: str, x: Tensor, handed: list[str], progress: Progress
):
    """``perturb``, noting for each image of ``x`` that it was the last attack to get it."""

    def watched(images: Tensor, labels: Tensor) -> Tensor:
        progress.note(f"pyautoattack: {name} on a batch of {len(images)}")
        for image in images:
            for index in (x == image).flatten(1).all(dim=1).nonzero().flatten().tolist():
                handed[index] = name
        return perturb(images, labels)

    return watched


def own_verdicts(model: nn.Module, data: DeviceData, epsilon: float, suite: Suite, progress: Progress) -> list[str]:
    """By this benchmark's evaluation."""
    verdict = evaluate_images(model, data, classes=10, epsilon=epsilon, suite=suite, progress=progress)
    codes = verdict.broken_by
    assert codes is not None
    return [
        VERDICTS[code] if clean else MISCLASSIFIED for code, clean in zip(codes, verdict.bits["clean"], strict=True)
    ]


def table(official: list[str], own: list[str], labels: list[str]) -> str:
    """All images as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "label", "pyautoattack", "ltrobust_bench"])
    writer.writerows((i, *row) for i, row in enumerate(zip(labels, official, own, strict=True)))
    return text.getvalue()


@click.command()
@click.option("--weights", type=PATH, default=SHIPPED, help="model_test.pt (default: the installed pyautoattack's).")
@click.option("--images", type=click.IntRange(1, 10_000), default=8, show_default=True, help="First N test images.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Of both sides.")
@click.option("--epsilon", default="0.00455", show_default=True, help="Linf radius, e.g. 0.004 or 1/255.")
@click.option("--output", type=PATH, metavar="FILE", help="Write all images' verdicts there, as CSV.")
@data_dir_option
@device_option
@threads_option
def command(
    weights: Path,
    images: int,
    batch_size: int,
    epsilon: str,
    output: Path | None,
    data_dir: Path | None,
    device: str,
    threads: int | None,
) -> None:
    """Compare this benchmark's AutoAttack with a plain call of pyautoattack, image by image.

    Real CIFAR-10 test images in the data set's order, the undefended ResNet-18 that comes with pyautoattack, the
    AutoAttack of protocol ltr-linf-v1. Exit code 1 if a verdict differs: standing, broken first by which attack, or
    misclassified.
    """
    set_threads(threads)
    radius, where = number(epsilon), choose_device(device)
    if not 0 < radius <= 1:
        raise UsageError(f"--epsilon {epsilon} is no radius; write a number above 0, at most 1, for example 1/255.")
    if output is not None:
        make_folder(output.parent)
    model = network(weights).to(where)
    source = load_source(dataset_spec("cifar10-lt"), data_dir)
    data = DeviceData.of(source.test_images[:images], source.test_labels[:images], where)
    stated = load_protocol("ltr-linf-v1").evaluation
    auto = [attack for attack in stated.attacks if attack.kind == "autoattack"]
    suite = stated.model_copy(update={"batch_size": batch_size, "attacks": auto})

    out = console()
    out.print(
        f"{images} test images, epsilon {epsilon}, batches of {batch_size}, seed {suite.seed}; pyautoattack "
        f"{version('pyautoattack')}, torch {torch.__version__}, {device_name(str(where))}, "
        f"{torch.get_num_threads()} threads"
    )
    with progress_on(out) as progress:
        began = time.monotonic()
        with frozen(model):
            official = official_verdicts(model, to_unit(data.images), data.labels, radius, suite, progress)
        between = time.monotonic()
        own = own_verdicts(model, data, radius, suite, progress)
    spent = {"pyautoattack": between - began, "ltrobust-bench": time.monotonic() - between}

    _print(official, own, spent)
    if output is not None:
        write_text(output, table(official, own, [source.class_names[label] for label in data.labels.tolist()]))
        out.print(f"wrote {output}", soft_wrap=True)
    if official != own:
        sys.exit(1)


def _print(official: list[str], own: list[str], spent: dict[str, float]) -> None:
    from rich.table import Table

    out, rows = console(), Table("images that are", *spent, box=None)
    for name in VERDICTS:
        words = name if name in (STANDING, MISCLASSIFIED) else f"first broken by {name}"
        rows.add_row(words, str(official.count(name)), str(own.count(name)))
    rows.add_row("robust accuracy", *(f"{np.mean([v == STANDING for v in side]):.1%}" for side in (official, own)))
    rows.add_row("time", *(duration(seconds) for seconds in spent.values()))
    out.print(rows)
    different = [i for i, pair in enumerate(zip(official, own, strict=True)) if len(set(pair)) > 1]
    for i in different:
        out.print(f"image {i}: {official[i]} by pyautoattack, {own[i]} by ltrobust-bench")
    out.print(f"{len(different)} of {len(own)} verdicts differ")


def main() -> None:
    """The command, with errors as one line."""
    try:
        command()
    except LTBenchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
