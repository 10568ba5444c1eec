"""How a network in training does now and then: clean and PGD accuracy on a few images. It is no cost of training."""

from __future__ import annotations

import torch
from torch import Tensor

from ltrobust_bench.attacks.pgd import pgd
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.precision import full_float32
from ltrobust_bench.data.loader import DeviceData, TrainData, to_unit
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.randomness import seeded
from ltrobust_bench.training.step import Trainee

MONITOR_IMAGES = 128
MONITOR_TIMES = 20
"""At most, in a run."""
HELD_OUT_IMAGES, HELD_OUT_STEPS = 500, 20
"""Held-out images that a run with a holdout is attacked on as it trains, at most, and PGD steps."""


def due(epoch: int, epochs: int) -> bool:
    """Whether the network is looked at after this epoch: after the last one, and at most ``MONITOR_TIMES`` in all."""
    return epoch == epochs or epoch % -(-epochs // MONITOR_TIMES) == 0


def monitor(trainee: Trainee, run: RunSection, data: TrainData, held_out: DeviceData | None) -> dict[str, float]:
    """Clean and PGD accuracy on some *training* images under the recipe's attack, and of a run with a holdout also
    on some held-out images, under PGD-20 of the evaluation's radius. The network is as it is trained, without the
    method's form of inference."""
    spec = trainee.recipe.attack
    found = {}
    found["train_clean"], found["train_robust"] = _accuracy(
        trainee, run.seed, data, MONITOR_IMAGES, float(spec.epsilon), float(spec.step_size), max(spec.steps, 1)
    )
    if held_out is not None:
        found["val_clean"], found["val_robust"] = _accuracy(
            trainee, run.seed, held_out, HELD_OUT_IMAGES, run.epsilon, run.epsilon / 4, HELD_OUT_STEPS
        )
    return found


def _accuracy(
    trainee: Trainee, seed: int, data: TrainData, most: int, epsilon: float, step_size: float, steps: int
) -> tuple[float, float]:
    """Clean and PGD accuracy on at most so many images, spread evenly over a set."""
    device = data.labels.device
    chosen = torch.linspace(0, len(data) - 1, min(most, len(data)), device=device).long()
    x, y = to_unit(data.at(chosen)), data.labels[chosen]
    network = Splitting(trainee.network.eval())

    def attack() -> Tensor:
        return pgd(
            network,
            x,
            y,
            epsilon=epsilon,
            step_size=step_size,
            steps=steps,
            ball=trainee.ball,
            generator=seeded(seed, "monitor"),
        )

    # A batch of the recipe's may be smaller, because no more images fit. What is looked at is no cost of training.
    with full_float32(), trainee.forwards.meter.apart():
        adversarial = network.fit(attack, len(x))
    with full_float32(), torch.no_grad(), trainee.forwards.meter.apart():
        clean, robust = (network(images).argmax(dim=1) == y for images in (x, adversarial))
    return clean.float().mean().item(), (clean & robust).float().mean().item()
