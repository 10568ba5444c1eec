"""Does a search in reduced precision change verdicts? ``python benchmarks/search.py``.

AutoAttack on one network, image by image: searched on the network itself with several seeds, and with the first seed on
copies of it. A way to search is admitted if its verdicts differ from the network's in no more images than those of two
seeds do. Without ``--checkpoint`` the network is AT-BSL on digits-lt, trained here. ``tf32`` is measured on a GPU; on a
processor ``tf32 emulated`` rounds what enters a product to TF32's ten bits of mantissa, forward and backward.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from measure import report
from torch import Tensor, nn

from ltrobust_bench.attacks.autoattack import AutoAttack
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.data.split import first_of_each_class
from ltrobust_bench.evaluation.evaluator import Verdict, evaluate_images, frozen
from ltrobust_bench.protocol import Suite
from ltrobust_bench.verbs import load_model, task_of, train
from ltrobust_bench.verbs.evaluations import searched_on

EMULATED = "tf32 emulated"


class _Rounded(torch.autograd.Function):
    """float32 rounded to ten bits of mantissa on the way ``there``, or ``back``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: bool) -> Tensor:
        ctx.there = there
        return rounded(x) if there else x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient if ctx.there else rounded(gradient), None


def rounded(x: Tensor) -> Tensor:
    """float32 numbers to the nearest with ten bits of mantissa, as TF32 has them."""
    bits = x.detach().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).view(x.shape)


def emulate(copy: nn.Module) -> nn.Module:
    """Have a copy multiply as TF32 does: of each product both factors are rounded, the sum is not."""
    for module in copy.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            with torch.no_grad():
                module.weight.copy_(rounded(module.weight))
            module.register_forward_pre_hook(lambda m, given: (_Rounded.apply(given[0], True),))
            module.register_forward_hook(lambda m, given, output: _Rounded.apply(output, False))
    return copy


def attacked(model: nn.Module, data: DeviceData, task: Any, suite: Suite, search: str) -> Verdict:
    """AutoAttack's verdicts, searched on ``search``."""
    with frozen(model):
        kind = "folded" if search == EMULATED else search
        copy: nn.Module | None = searched_on(model, to_unit(data.images[:2]), kind)  # type: ignore[arg-type]
        if copy is not None and search == EMULATED:
            copy = emulate(copy)
    return evaluate_images(
        model, data, classes=task.classes, epsilon=task.epsilon, suite=suite, ball=task.ball, searched=copy,
        products="tf32" if search == "tf32" else "ieee",
    )  # fmt: skip


@click.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A network of this package.")
@click.option("--search", "searches", multiple=True, default=("folded", EMULATED, "bf16"), show_default=True)
@click.option("--seeds", type=click.IntRange(2), default=3, show_default=True, help="Of the attacks.")
@click.option("--share", type=float, default=1.0, show_default=True, help="Share of the attacks' iterations.")
@click.option("--images", type=int, help="First images of each class, together (default: the protocol's).")
@click.option("--threads", type=int)
@click.option("--device", default="auto", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="CSV file.")
def main(
    checkpoint: Path | None,
    searches: tuple[str, ...],
    seeds: int,
    share: float,
    images: int | None,
    threads: int | None,
    device: str,
    output: Path | None,
) -> None:
    """Count the images whose verdict differs."""
    if threads:
        torch.set_num_threads(threads)
    where = choose_device(device)
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint or train("at-bsl", "digits-lt", runs_dir=folder, device=str(where)).model_path
        loaded = load_model(path, str(where))
    task = task_of(loaded.run)
    labels = np.asarray(task.source.test_labels)
    index = first_of_each_class(labels, task.split.test, images)
    data = DeviceData.of(task.source.test_pixels(index), labels[index], where)
    standard = AutoAttack.standard()
    asked = standard.model_copy(
        update={"steps": max(1, round(share * standard.steps)), "queries": max(1, round(share * standard.queries))}
    )
    suite = replace_suite(task.protocol.evaluation, asked)
    runs = [("network", seed) for seed in range(seeds)] + [(search, 0) for search in searches]
    found, seconds = {}, {}
    for search, seed in runs:
        began = time.monotonic()
        found[search, seed] = attacked(loaded.model, data, task, suite.model_copy(update={"seed": seed}), search)
        seconds[search, seed] = time.monotonic() - began
    bits = {run: verdict.bits[asked.name] for run, verdict in found.items()}
    between = [
        int((bits["network", a] != bits["network", b]).sum()) for a, b in itertools.combinations(range(seeds), 2)
    ]
    rows = [_row(run, found[run], bits, seconds[run]) for run in runs]
    run = loaded.run
    report(
        f"{run.method} on {run.dataset}, {run.model}: AutoAttack, {asked.steps} steps and {asked.queries} queries, "
        f"{len(index)} images; two seeds differ in {min(between)} to {max(between)} verdicts",
        rows, output, where,
    )  # fmt: skip


def replace_suite(suite: Suite, attack: AutoAttack) -> Suite:
    """A suite of one attack."""
    return suite.model_copy(update={"attacks": [attack]})


def _row(
    run: tuple[str, int], verdict: Verdict, bits: dict[tuple[str, int], np.ndarray], seconds: float
) -> dict[str, str]:
    confirmed, unconfirmed, again = verdict.searched or ("", "", "")
    return {
        "searched on": run[0],
        "seed": str(run[1]),
        "robust": str(int(bits[run].sum())),
        "other verdicts": str(int((bits[run] != bits["network", 0]).sum())),
        "confirmed": str(confirmed),
        "unconfirmed": str(unconfirmed),
        "broken again": str(again),
        "seconds": f"{seconds:.0f}",
    }


if __name__ == "__main__":
    main()
