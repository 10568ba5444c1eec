"""A network that learns a model's answers, for attacks to be crafted on (Papernot et al., ASIA CCS 2017, arXiv
1602.02697)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust_bench.attacks.ball import Ball
from ltrobust_bench.attacks.engine import ascend
from ltrobust_bench.attacks.terms import Target
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.data.loader import to_unit
from ltrobust_bench.models.registry import Shape, models
from ltrobust_bench.randomness import derive_seed, seeded

EPOCHS, MOST, BATCH, RATE = 30, 2000, 64, 2e-3
"""Of the student's training; ``MOST`` steps at most."""
CRAFTED = 3
"""Steps of the attack on the student whose images the model is asked about."""


def distilled(on: Target, images: Tensor, network: str) -> nn.Module:
    """A student of what is attacked: the same answers where an attack will go, and gradients of its own.

    Each step asks the model about training images that were attacked on the student as it is then, so that it learns
    what the model says there; the model is only asked for logits. No label is used.

    Args:
        on: the model, within what it is attacked, and the seed.
        images: training images, uint8 [N, channels, height, width], on the model's device.
        network: name of the student's backbone; its head is linear.
    """
    channels, height, width = images.shape[1:]
    student = untrained((channels, height, width), on.classes, network, on.seed).to(images.device)
    with torch.enable_grad():
        student.train()
        optimiser = torch.optim.Adam(student.parameters(), lr=RATE)
        order = seeded(on.seed, "student/order")
        steps = min(MOST, EPOCHS * math.ceil(len(images) / BATCH))
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = RATE * (1 - step / steps)
            chosen = torch.randint(len(images), (BATCH,), generator=order).to(images.device)
            x = _attacked(student, to_unit(images[chosen]), on.epsilon, on.ball, seeded(on.seed, "student/start", step))
            optimiser.zero_grad()
            _distance(student(x), _answers(on.model, x)).mean().backward()
            optimiser.step()
    return student.eval().requires_grad_(False)


def untrained(shape: Shape, classes: int, network: str, seed: int) -> nn.Module:
    """A student that has learned nothing yet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "student/weights"))
        backbone = models.get(network)(shape)
        return nn.Sequential(backbone, nn.Linear(backbone.features, classes))


def _attacked(student: nn.Module, x: Tensor, epsilon: float, ball: Ball, generator: torch.Generator) -> Tensor:
    """Images in the ball at which the student's answer has been moved off what it says of ``x``."""
    with torch.no_grad():
        said = student(x).argmax(dim=1)
    step_size = epsilon / 2
    return ascend(
        student, x, said, objective=_error, epsilon=epsilon, step_size=step_size, steps=CRAFTED, ball=ball,
        generator=generator,
    )  # fmt: skip


def _error(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _answers(model: nn.Module, x: Tensor) -> Tensor:
    """The model's probabilities. Logits are brought to a standard scale, so that neither saturated nor flat ones hide
    which classes are near."""
    with torch.no_grad():
        logits = model.fit(lambda: model(x), len(x)) if isinstance(model, Splitting) else model(x)
        spread = logits.std(dim=1, keepdim=True).clamp_min(1e-12)
        answers: Tensor = (SHARPNESS * (logits - logits.mean(dim=1, keepdim=True)) / spread).softmax(dim=1)
    return answers


SHARPNESS = 2.0
"""Standard deviation of the logits that the student learns."""


def _distance(logits: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of the student's probabilities to the model's, per image."""
    return -(answers * logits.log_softmax(dim=1)).sum(dim=1)
