"""What a run will cost, before it starts: images through the network, and time, measured on a few images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltrobust_bench.attacks.terms import Attack
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.precision import full_float32, training_arithmetic
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.progress import duration
from ltrobust_bench.training.build import build_method, build_plugins, companion_of, deployed, network_of
from ltrobust_bench.training.step import Step, Trainee

ASSUMED_ROBUST = 0.4
"""Share of test images assumed to survive; an attack spends its full budget on survivors only."""


@dataclass(frozen=True)
class Estimate:
    """Cost of a run.

    Attributes:
        steps: optimiser steps.
        training_images: images forward and backward in training.
        evaluation_images: the same in the evaluation, with ``ASSUMED_ROBUST`` of the test images surviving.
        training_seconds, evaluation_seconds: on this machine.
    """

    steps: int
    training_images: int
    evaluation_images: int
    training_seconds: float
    evaluation_seconds: float

    @property
    def seconds(self) -> float:
        """Training and evaluation together."""
        return self.training_seconds + self.evaluation_seconds


def evaluation_cost(model: nn.Module, data: DeviceData, classes: int, attacks: list[Attack], batch_size: int) -> str:
    """What attacks cost on ``data``: images forward and backward, and time on this machine.

    Args:
        model: pixels to logits, in eval mode, without parameter gradients.
        data: test images.
        classes: C.
        attacks: what the images are attacked with.
        batch_size: of the evaluation; no more images are passed at once.
    """
    images = int(len(data) * ASSUMED_ROBUST * sum(attack.passes(classes) for attack in attacks))
    time_here = duration(images * _attack_pass(model, data.images[:batch_size]))
    return f"{images:,} images forward and backward, {time_here} here (if {ASSUMED_ROBUST:.0%} survive)"


def _attack_pass(model: nn.Module, images: Tensor) -> float:
    """Seconds that ``model``, in eval mode, takes to pass one image forward and back.

    Args:
        images: uint8, not more than are to be passed at once.
    """
    splitting = Splitting(model)

    def climb(count: int) -> float:
        x = to_unit(images[:count]).requires_grad_(True)
        began = time.monotonic()
        with torch.enable_grad():
            value = splitting(x).sum()
        if value.requires_grad:
            torch.autograd.grad(value, x)
        value.item()
        return time.monotonic() - began

    taken, count = _timed(lambda n: splitting.fit(lambda: climb(n), n), len(images))
    return taken / count


AGAIN = 2
"""So many more timings; the fastest counts."""


def _timed(work: Callable[[int], float], most: int) -> tuple[float, int]:
    """Seconds that ``work`` takes on a number of images, at most ``most``, that can be afforded, and that number."""
    # Two images tell whether more can be afforded. Libraries plan at the first call of each size: it is not timed.
    images = min(2, most)
    while True:
        work(images)
        taken = work(images)
        if taken >= 0.5 or images == most:
            # Other work on the machine makes some of them longer, and none shorter; by as much as that two images look
            # like all that can be afforded.
            taken = min(taken, *(work(images) for _ in range(AGAIN)))
            if taken >= 0.5 or images == most:
                return taken, images
        images = min(most, images * 4)


def _stand_in(base: Plan, device: torch.device) -> nn.Module:
    """A teacher that has learned nothing: it costs what the real one does."""
    run, task = base.run, base.task
    method, info = build_method(run.method, run.options, run.train_counts, run.dataset, run.recipe.epochs, device)
    network = network_of(run, task.spec.shape, method).to(device)
    return deployed(method, network, info)


@dataclass(frozen=True)
class Speed:
    """What was measured of a method with its plug-ins on a network and a data set; it holds for other seeds, ratios and
    budgets too.

    Attributes:
        training: seconds to pass a training image forward and back.
        attacking: the same for a test image under attack.
        crafting: the share of epochs in which there is an attack.
    """

    training: float
    attacking: float
    crafting: float


def estimate(plan: Plan, device: torch.device) -> Estimate:
    """What a plan costs, measured on a few images."""
    return scaled(plan, measure(plan, device))


def scaled(plan: Plan, speed: Speed) -> Estimate:
    """What a plan costs at a speed that was measured."""
    run, task = plan.run, plan.task
    passes = run.recipe.attack.steps * speed.crafting + 1
    again = {"none": 0.0, "clean": 1.0, "adversarial": passes}[run.recipe.recalibrate_bn] * bool(plan.budget)
    images = min(run.recipe.batch_size, plan.train_size)
    training_images = int((plan.budget * passes + plan.steps_per_epoch * again) * images)
    spent = sum(a.passes(task.classes) for a in task.protocol.evaluation.attacks)
    evaluation_images = int(sum(run.test_counts) * ASSUMED_ROBUST * spent)
    return Estimate(
        steps=plan.budget,
        training_images=training_images,
        evaluation_images=evaluation_images,
        training_seconds=training_images * speed.training,
        evaluation_seconds=evaluation_images * speed.attacking,
    )


def measure(plan: Plan, device: torch.device) -> Speed:
    """Time a training step on a few images, with one attack step instead of all, and one of the evaluation's
    attacks, on the network itself in float32."""
    run, task = plan.run, plan.task
    method, info = build_method(run.method, run.options, run.train_counts, run.dataset, run.recipe.epochs, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        network = network_of(run, task.spec.shape, method).to(device)
        companion = companion_of(run, task.spec.shape, method)
        companion = companion and companion.to(device)
    # A method need not craft in every epoch; what is timed is a step of one in which it does.
    epochs = range(1, run.recipe.epochs + 1)
    crafting = [epoch for epoch in epochs if method.crafts(epoch, len(epochs))]
    epoch, attack_steps = crafting[0] if crafting else 1, min(run.recipe.attack.steps, 1 if crafting else 0)
    short = run.recipe.model_copy(update={"attack": run.recipe.attack.model_copy(update={"steps": attack_steps})})
    trainee = Trainee(
        network,
        method,
        short,
        run.recipe.optimizer.build(network.parameters(), 0.0, run.recipe.weight_decay),
        Counter(),
        build_plugins(run.plugins, run.options, info),
        _stand_in(plan.base, device) if plan.base and plan.card.base and plan.card.base.role == "teacher" else None,
        run.policy.model_copy(update={"compile": False}),  # compiling would take longer than the estimate
        task.ball,
        companion=companion,
    )
    batch = min(run.recipe.batch_size, plan.train_size)

    def step(images: int) -> float:
        chosen = task.split.train[:images]
        x = to_unit(torch.from_numpy(task.source.train_pixels(chosen)).to(device))
        y = torch.from_numpy(task.source.train_labels[chosen]).to(device)
        began = time.monotonic()
        current = Step(trainee, x, y, (x, y), epoch=epoch, epochs=run.recipe.epochs)
        current.craft()
        current.update().item()
        return time.monotonic() - began

    with training_arithmetic(run.recipe.precision, tuned=run.policy != Policy()):
        taken, images = _timed(step, batch)
    with full_float32():
        some = task.split.train[: task.protocol.evaluation.batch_size]
        attacking = _attack_pass(network.eval(), torch.from_numpy(task.source.train_pixels(some)).to(device))
    return Speed(
        training=taken / images / (attack_steps + 1),
        attacking=attacking,
        crafting=len(crafting) / max(1, len(epochs)),
    )
