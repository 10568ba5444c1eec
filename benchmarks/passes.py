"""What AutoAttack spends on an image that it breaks and on one that withstands it, and where its time goes:
``python benchmarks/passes.py RUN``.

RUN is the run folder of a finished network. Its images are attacked by AutoAttack's four parts, each on what the others
left standing; then those that withstood and those that did not are attacked again, each by themselves, and what passes
through the network is counted. ``--no-square`` leaves the longest part out.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from ltrobust_bench.progress import Silent


@dataclass
class Spent:
    """Of one part: images passed, and seconds in all, in the network's forward, and in its backward."""

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    forward: float = 0.0
    backward: float = 0.0


class Clock(nn.Module):
    """A model that notes what passes through it, by the part that is told of last."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.spent, self.part, self.began = model, defaultdict[str, Spent](Spent), "clean", 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ``x``."""
        spent, began = self.spent[self.part], time.perf_counter()
        logits: Tensor = self.model(x)
        spent.forward += time.perf_counter() - began
        spent.forwards += len(x)
        if logits.requires_grad and x.requires_grad:
            since = [0.0]

            def entered(gradient: Tensor) -> None:
                since[0] = time.perf_counter()
                spent.backwards += len(gradient)

            def left(gradient: Tensor) -> None:
                spent.backward += time.perf_counter() - since[0]

            logits.register_hook(entered)
            x.register_hook(left)
        return logits


class Parts(Silent):
    """Tells a clock which part is at work."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.since = clock, time.perf_counter()

    def start(self, what: str, total: int, done: int = 0, **more: Any) -> None:
        """See :class:`~ltrobust_bench.progress.Progress`."""
        now = time.perf_counter()
        self.clock.spent[self.clock.part].seconds += now - self.since
        self.clock.part, self.since = what.partition("/")[0], now


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--limit-test", type=int, default=100, show_default=True, metavar="N", help="First N/C images of each class."
)
@click.option("--no-square", is_flag=True, help="Leave Square out.")
def main(run: Path, limit_test: int, no_square: bool) -> None:
    """Count and time AutoAttack's parts."""
    from ltrobust_bench import verbs
    from ltrobust_bench.attacks.autoattack import AutoAttack
    from ltrobust_bench.data.loader import DeviceData
    from ltrobust_bench.data.split import first_of_each_class
    from ltrobust_bench.evaluation.evaluator import evaluate_images

    torch.set_num_threads(1)
    loaded = verbs.load_model(run, device="cpu")
    task = verbs.task_of(loaded.run)
    labels = np.asarray(task.source.test_labels)
    index = first_of_each_class(labels, task.split.test, limit_test)
    parts = [part for part in AutoAttack.standard().parts if not (no_square and part.kind == "square")]

    def attacked(chosen: np.ndarray) -> tuple[np.ndarray, dict[str, Spent]]:
        """Which withstand it all, and what it took."""
        clock = Clock(loaded.model)
        told = Parts(clock)
        data = DeviceData.of(task.source.test_pixels(chosen), labels[chosen], torch.device("cpu"))
        terms = {"classes": task.classes, "epsilon": task.epsilon, "suite": task.protocol.evaluation, "ball": task.ball}
        verdict = evaluate_images(clock, data, attacks=parts, cumulative=True, progress=told, **terms)
        told.start("end", 0)
        return np.logical_and.reduce(list(verdict.bits.values())), dict(clock.spent)

    stands, whole = attacked(index)
    right = index[~stands]
    of = {"standing": index[stands], "broken": right}
    spent = {name: attacked(chosen) for name, chosen in of.items()}
    otherwise = sum(int((again != (name == "standing")).sum()) for name, (again, _) in spent.items())
    click.echo(
        f"{run.name}: {int(stands.sum())} of {len(index)} images stand; attacked apart, {otherwise} come out otherwise"
    )
    click.echo("| part | passes per standing image | per broken image | seconds | forward | backward | its own work |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    kinds = [part.kind for part in parts]
    for part in [*kinds, "together"]:
        of_part = kinds if part == "together" else [part]
        each = [_per(_sum(found, of_part), len(of[name])) for name, (_, found) in spent.items()]
        _line(part, _sum(whole, of_part), *each)


def _sum(spent: dict[str, Spent], parts: list[str]) -> Spent:
    chosen = [vars(spent.get(part, Spent())) for part in parts]
    return Spent(**{name: sum(one[name] for one in chosen) for name in vars(Spent())})


def _per(spent: Spent, images: int) -> str:
    return f"{spent.forwards / max(1, images):,.0f} forward, {spent.backwards / max(1, images):,.0f} backward"


def _line(part: str, spent: Spent, standing: str, broken: str) -> None:
    own = spent.seconds - spent.forward - spent.backward
    shares = " | ".join(f"{100 * value / spent.seconds:.0f} %" for value in (spent.forward, spent.backward, own))
    click.echo(f"| {part} | {standing} | {broken} | {spent.seconds:.1f} | {shares} |")


if __name__ == "__main__":
    main()
