"""Speed of a training step against the plain loop of ``reference.py``: ``python benchmarks/train.py``.

Same network, images, batch and number of attack steps; all variants in one process, by turns; the ratio is what counts.
Images are random: time does not depend on them. The last column compares the products and sums that the plain loop
needs, per second of the variant, with those of large matrix products in the variant's precision on the same machine;
a variant that needs fewer may exceed what it does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import click
import torch
from measure import alternately, matrix_rate, report
from reference import LOOPS
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from ltrobust_bench.api import Network
from ltrobust_bench.cards import methods
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.precision import full_float32, training_arithmetic
from ltrobust_bench.models import models
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.training.build import build_method, build_network
from ltrobust_bench.training.step import Step, Trainee

COUNTS = [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]
"""CIFAR-10-LT, imbalance ratio 50."""
EPSILON = 8 / 255
IMAGE = (3, 32, 32)
FAST = Policy(crafting="folded", memory_format="channels_last")
VARIANTS: dict[str, tuple[Policy, str]] = {
    "default": (Policy(), "fp32"),
    "default tf32": (Policy(), "tf32"),
    "folded": (FAST, "fp32"),
    "folded tf32": (FAST, "tf32"),
    "winograd": (FAST.model_copy(update={"crafting": "winograd"}), "fp32"),
    "folded+compile": (FAST.model_copy(update={"compile": True}), "fp32"),
    "winograd+compile": (FAST.model_copy(update={"crafting": "winograd", "compile": True}), "fp32"),
    "bf16": (FAST, "bf16"),
    "bf16+compile": (FAST.model_copy(update={"compile": True}), "bf16"),
}


def steps_of(
    slug: str, model: str, device: torch.device, batch: int, attack_steps: int, names: list[str]
) -> dict[str, Callable[[], float]]:
    """One optimiser step on the same batch, by the reference loop and by each variant."""
    card = methods.get(slug).card
    recipe = card.resolve_recipe(load_protocol("ltr-linf-v1"), "fixed", EPSILON, {"attack.steps": attack_steps})
    torch.manual_seed(0)
    options = card.resolve_options("fixed", {})
    method, _ = build_method(slug, options, COUNTS, "cifar10-lt", recipe.epochs, device)
    start: Network = build_network(model, IMAGE, len(COUNTS), method).to(device)
    x, noise = (torch.rand(batch, *IMAGE, device=device) for _ in range(2))
    y = torch.multinomial(torch.tensor(COUNTS, dtype=torch.float64), batch, replacement=True).to(device)

    def sgd(network: Network) -> torch.optim.Optimizer:
        return recipe.optimizer.build(network.parameters(), recipe.lr, recipe.weight_decay)

    network = copy.deepcopy(start)
    attack = {"epsilon": EPSILON, "step_size": float(recipe.attack.step_size), "steps": attack_steps}
    counts = torch.tensor(COUNTS, dtype=torch.float64, device=device)
    loop = LOOPS[slug](network, sgd(network), counts, **attack)
    steps: dict[str, Callable[[], float]] = {"reference": lambda: loop.step(x, y, noise)}
    for name in names:
        policy, precision = VARIANTS[name]
        network = copy.deepcopy(start)
        changed = recipe.model_copy(update={"precision": precision})
        method, _ = build_method(slug, options, COUNTS, "cifar10-lt", recipe.epochs, device)
        trainee = Trainee(network, method, changed, sgd(network), Counter(), policy=policy)

        def ours(trainee: Trainee = trainee) -> float:
            with training_arithmetic(trainee.recipe.precision, tuned=trainee.policy != Policy()):
                step = Step(trainee, x, y, epoch=1, epochs=recipe.epochs)
                step.craft(start=x + EPSILON * (2 * noise - 1))
                return step.update().item()

        steps[name] = ours
    return steps


def operations(model: str, batch: int, attack_steps: int) -> int:
    """Products and sums of one step: every attack step passes the batch forward and its gradient back to the images;
    the outer loss passes it forward, and back to the images of each layer and to its weights."""
    backbone = models.get(model)(IMAGE)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        backbone(torch.zeros(1, *IMAGE))
    return counted.get_total_flops() * batch * (2 * attack_steps + 3)


@click.command()
@click.option("--method", "slugs", type=click.Choice(list(LOOPS)), multiple=True, default=("at", "reat"))
@click.option("--variant", "names", type=click.Choice(list(VARIANTS)), multiple=True, default=("default", "winograd"))
@click.option("--model", type=click.Choice(models.names()), default="resnet18", show_default=True)
@click.option("--batch", type=int, default=64, show_default=True)
@click.option("--attack-steps", type=int, default=10, show_default=True)
@click.option("--repeats", type=int, default=3, show_default=True)
@click.option("--threads", type=int)
@click.option("--device", default="auto", show_default=True)
@click.option("--profile", "profiled", is_flag=True, help="Also show where each variant's time goes.")
@click.option("--output", type=click.Path(path_type=Path), help="CSV file.")
def main(
    slugs: tuple[str, ...],
    names: tuple[str, ...],
    model: str,
    batch: int,
    attack_steps: int,
    repeats: int,
    threads: int | None,
    device: str,
    profiled: bool,
    output: Path | None,
) -> None:
    """Time one optimiser step by the plain loop and by each variant."""
    if threads:
        torch.set_num_threads(threads)
    rows = []
    where = choose_device(device)
    with full_float32():
        precisions = sorted({"fp32", *map(_precision, names)})
        rates = {p: _rate(where, p) for p in precisions}
        for slug in slugs:
            steps = steps_of(slug, model, where, batch, attack_steps, list(names))
            losses: dict[str, float] = {}
            seconds = alternately({n: _noting(n, f, losses) for n, f in steps.items()}, repeats)
            flops = operations(model, batch, attack_steps)
            for name, taken in seconds.items():
                rows.append(
                    {
                        "method": slug,
                        "variant": name,
                        "seconds": f"{taken:.2f}",
                        "images/s": f"{batch / taken:.1f}",
                        "ratio": f"{seconds['reference'] / taken:.2f}",
                        "first loss": f"{losses[name]:.5f}",
                        "of matrix rate": f"{flops / taken / rates[_precision(name)]:.0%}",
                    }
                )
            if profiled:
                for name, step in steps.items():
                    with profile() as seen:  # of everything that there is here
                        step()
                    time = f"self_{'device' if where.type == 'cuda' else 'cpu'}_time_total"
                    click.echo(f"{slug}, {name}\n{seen.key_averages().table(time, row_limit=8)}")
    found = ", ".join(f"{p} {rate / 1e12:.2f} TFLOP/s" for p, rate in rates.items())
    report(f"One step of {model}, batch {batch}, PGD-{attack_steps}; matrix products {found}", rows, output, where)


def _rate(device: torch.device, precision: str) -> float:
    with training_arithmetic(precision, tuned=False):  # type: ignore[arg-type]
        return matrix_rate(device, precision)


def _precision(name: str) -> str:
    return VARIANTS[name][1] if name in VARIANTS else "fp32"


def _noting(name: str, step: Callable[[], float], losses: dict[str, float]) -> Callable[[], None]:
    """The step, which leaves the loss of its first call in ``losses``: from the same weights it is the same for all."""

    def run() -> None:
        loss = step()
        losses.setdefault(name, loss)

    return run


if __name__ == "__main__":
    main()
