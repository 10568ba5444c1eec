"""Speed of AutoAttack against the plain pyautoattack call: ``python benchmarks/evaluate.py``.

Same network, images, batch and iterations; all variants in one process, by turns. Without ``--checkpoint`` the network
is a ResNet-18, trained for a moment on digits that are enlarged to 32x32, so that nothing has to be downloaded; the
radius is where it keeps about half of the images. ``--share 0.1`` runs a tenth of every attack's iterations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from measure import alternately, report
from reference import AdversarialTraining
from torch import Tensor, nn

from ltrobust_bench.api import Network, linear
from ltrobust_bench.attacks.autoattack import AutoAttack
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.precision import full_float32
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.evaluation.evaluator import evaluate_images, frozen
from ltrobust_bench.models import models
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.protocol import Suite
from ltrobust_bench.verbs import load_model, task_of
from ltrobust_bench.verbs.evaluations import searched_on

STANDARD = {"steps": 100, "queries": 5000}
VARIANTS = ("network", "folded", "winograd", "tf32", "bf16")
SIZE = 32


def enlarged(pixels: np.ndarray) -> np.ndarray:
    """Digits [N, 1, 8, 8] as images [N, 3, 32, 32]."""
    times = SIZE // pixels.shape[-1]
    return np.repeat(pixels.repeat(times, 2).repeat(times, 3), 3, axis=1)


def stand_in_for_a_trained_network(model: str, steps: int, device: torch.device) -> tuple[nn.Module, DeviceData]:
    """A network after a moment of adversarial training on enlarged digits, and the test images."""
    task = make_task("digits-lt")
    source, split = task.source, task.split
    torch.manual_seed(0)
    backbone = models.get(model)((3, 32, 32))
    network = Network(backbone, linear(backbone.features, 10)).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    counts = torch.tensor(split.train_counts, dtype=torch.float64, device=device)
    loop = AdversarialTraining(network, optimizer, counts, epsilon=0.05, step_size=0.05, steps=1)
    x = to_unit(torch.from_numpy(enlarged(source.train_pixels(split.train)))).to(device)
    y = torch.from_numpy(source.train_labels[split.train]).to(device)
    for _ in range(steps):
        chosen = torch.randint(len(y), (32,), device=device)
        loop.step(x[chosen], y[chosen], torch.rand_like(x[chosen]))
    test = split.test[:: max(1, len(split.test) // 250)]
    data = DeviceData.of(enlarged(source.test_pixels(test)), np.asarray(source.test_labels[test]), device)
    return network.eval(), data


def plain_call(
    model: nn.Module, x: Tensor, y: Tensor, epsilon: float, batch: int, steps: int, queries: int
) -> Callable[[], np.ndarray]:
    """The official package's standard evaluation as its readme calls it; robust images, bool [T]."""
    from pyautoattack import AutoAttack

    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    official = AutoAttack(model, eps=epsilon, seed=0, device=x.device, version="standard")
    for part in (official.apgd, official.apgd_targeted):
        part.n_iter = part.n_iter_orig = steps
        part.n_iter_2, part.n_iter_min, part.size_decr = (max(int(s * steps), 1) for s in (0.22, 0.06, 0.03))
    official.fab.n_iter, official.square.n_queries = steps, queries

    def run() -> np.ndarray:
        with full_float32():
            _, predicted = official.run_standard_evaluation(x, y, batch_size=batch)
        return (predicted == y).cpu().numpy()

    return run


def our_call(
    model: nn.Module, data: DeviceData, search: str, epsilon: float, batch: int, steps: int, queries: int
) -> Callable[[], np.ndarray]:
    """The same by this package, with one of its searches."""
    attack = AutoAttack(
        name="autoattack", kind="autoattack", steps=steps, restarts=1, targets=9, queries=queries, p_init=0.8, rho=0.75
    )
    suite = Suite(seed=0, batch_size=batch, attacks=[attack])

    def run() -> np.ndarray:
        with frozen(model):
            copy = searched_on(model, to_unit(data.images[:2]), search)  # type: ignore[arg-type]
        terms = {"searched": copy, "products": "tf32" if search == "tf32" else "ieee"}
        return evaluate_images(model, data, classes=10, epsilon=epsilon, suite=suite, **terms).bits["autoattack"]

    return run


@click.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A finished run instead of the quick network.")
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="LTBENCH_DATA", help="For --checkpoint.")
@click.option("--variant", "names", type=click.Choice(VARIANTS), multiple=True, default=VARIANTS[:3])
@click.option("--model", type=click.Choice(models.names()), default="resnet18", show_default=True)
@click.option("--train-steps", type=int, default=25, show_default=True, help="Of the quick network.")
@click.option("--images", type=int, default=32, show_default=True)
@click.option("--batch", type=int, default=32, show_default=True)
@click.option("--epsilon", type=float, default=0.05, show_default=True, help="Of the quick network.")
@click.option("--share", type=float, default=0.1, show_default=True, help="Of the standard iterations.")
@click.option("--repeats", type=int, default=3, show_default=True)
@click.option("--threads", type=int)
@click.option("--device", default="auto", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="CSV file.")
def main(
    checkpoint: Path | None,
    data_dir: Path | None,
    names: tuple[str, ...],
    model: str,
    train_steps: int,
    images: int,
    batch: int,
    epsilon: float,
    share: float,
    repeats: int,
    threads: int | None,
    device: str,
    output: Path | None,
) -> None:
    """Time AutoAttack by the plain call and by each variant, and compare the verdicts image by image."""
    if threads:
        torch.set_num_threads(threads)
    where = choose_device(device)
    if checkpoint is None:
        module, data = stand_in_for_a_trained_network(model, train_steps, where)
    else:
        loaded = load_model(checkpoint, device=device)
        task = task_of(loaded.run, data_dir)
        module, model, epsilon, index = loaded.model, loaded.run.model, task.epsilon, task.split.test
        data = DeviceData.of(task.source.test_pixels(index), np.asarray(task.source.test_labels[index]), where)
    data = _spread(data, images)
    steps, queries = (max(1, round(share * n)) for n in STANDARD.values())
    asked = {"epsilon": epsilon, "batch": batch, "steps": steps, "queries": queries}
    calls = {"pyautoattack": plain_call(module, to_unit(data.images), data.labels, **asked)}
    calls |= {name: our_call(module, data, name, **asked) for name in names}
    verdicts: dict[str, np.ndarray] = {}
    seconds = alternately({n: (lambda n=n, f=f: verdicts.__setitem__(n, f())) for n, f in calls.items()}, repeats)
    official = verdicts["pyautoattack"]
    rows = [
        {
            "variant": name,
            "seconds": f"{taken:.1f}",
            "ratio": f"{seconds['pyautoattack'] / taken:.2f}",
            "robust": f"{verdicts[name].sum()} of {len(official)}",
            "other verdicts": int((verdicts[name] != official).sum()),
        }
        for name, taken in seconds.items()
    ]
    title = f"AutoAttack on {model}, {len(official)} images in batches of {batch}, {steps} steps, {queries} queries"
    report(title, rows, output, where)


def _spread(data: DeviceData, images: int) -> DeviceData:
    """So many images, spread evenly over the set."""
    chosen = torch.linspace(0, len(data) - 1, min(images, len(data)), device=data.labels.device).long()
    return DeviceData(data.images[chosen], data.labels[chosen])


if __name__ == "__main__":
    main()
