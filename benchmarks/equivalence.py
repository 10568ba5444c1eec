"""Whether a way of computing changes results: ``python benchmarks/equivalence.py``.

Trains the same methods and seeds on the reference path and by each variant, and compares balanced accuracy, clean and
under PGD-20, seed by seed. Admission to ranked boards asks that the mean difference is known to lie within 0.5 points:
its 95 % t interval over five or more seeds is inside. The same command goes on where it stopped.

    python benchmarks/equivalence.py
    python benchmarks/equivalence.py --dataset cifar10-lt --model small --epochs 10 --limit-train 2000 --limit-test 1000
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from measure import report
from train import VARIANTS

from ltrobust_bench import verbs
from ltrobust_bench.cards import methods
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.scores.intervals import t_interval

MARGIN, SEEDS = 0.5, 5
"""Points within which a difference must be known to lie, and the fewest seeds that can show it."""
ATTACK = "pgd-20"


def accuracies(
    method: str, dataset: str, runs_dir: Path, limit_test: int | None, request: dict[str, Any]
) -> list[float]:
    """Balanced accuracy of one run in per cent: clean, and under the attack."""
    trained = verbs.train(method, dataset, runs_dir=runs_dir, **request)
    terms = {name: request[name] for name in ("data_dir", "device")}
    result = verbs.evaluate(trained.model_path, attacks=[ATTACK], limit_test=limit_test, **terms)
    return [100 * float(result.metrics(name).balanced) for name in ("clean", ATTACK)]


def outcome(low: float, high: float, seeds: int) -> str:
    """What an interval of the difference says about equivalence."""
    if low > MARGIN or high < -MARGIN:
        return "different"
    return "equivalent" if seeds >= SEEDS and low >= -MARGIN and high <= MARGIN else "not shown"


@click.command()
@click.option("--method", "slugs", type=click.Choice(methods.names()), multiple=True, default=("at", "reat"))
@click.option("--variant", "names", type=click.Choice(list(VARIANTS)), multiple=True, default=("folded", "bf16"))
@click.option("--dataset", default="digits-lt", show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="LTBENCH_DATA")
@click.option("--model", help="Network (default: the protocol's).")
@click.option("--seeds", type=int, default=SEEDS, show_default=True)
@click.option("--epochs", type=int, help="Another budget than the recipe's.")
@click.option("--limit-train", type=int)
@click.option("--limit-test", type=int)
@click.option("--threads", type=int)
@click.option("--device", default="auto", show_default=True)
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs/equivalence"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="CSV file.")
def main(
    slugs: tuple[str, ...],
    names: tuple[str, ...],
    dataset: str,
    seeds: int,
    threads: int | None,
    limit_test: int | None,
    runs_dir: Path,
    output: Path | None,
    **request: Any,
) -> None:
    """Compare the accuracies of runs on the reference path with those of each variant."""
    if threads:
        torch.set_num_threads(threads)
    rows = []
    for slug in slugs:
        found = {
            name: np.array(
                [
                    accuracies(slug, dataset, runs_dir, limit_test, {**request, "seed": seed, **_variant(name)})
                    for seed in range(seeds)
                ]
            )
            for name in ("default", *names)
        }
        for name in names:
            for column, what in enumerate(("clean", ATTACK)):
                base, other = found["default"][:, column], found[name][:, column]
                low, high = t_interval(other - base)
                rows.append(
                    {
                        "method": slug,
                        "variant": name,
                        "accuracy": what,
                        "reference": f"{base.mean():.2f}",
                        "difference": f"{(other - base).mean():+.2f}",
                        "95 % interval": f"{low:+.2f} to {high:+.2f}",
                        "spread of seeds": f"{base.std(ddof=1):.2f}",
                        "outcome": outcome(float(low), float(high), seeds),
                    }
                )
    asked = ", ".join(f"{name}={value}" for name, value in request.items() if value is not None and name != "data_dir")
    report(f"{dataset}, {seeds} seeds, {asked}", rows, output, choose_device(request["device"]))


def _variant(name: str) -> dict[str, Any]:
    policy, precision = VARIANTS[name]
    return {"policy": policy, "precision": precision}


if __name__ == "__main__":
    main()
