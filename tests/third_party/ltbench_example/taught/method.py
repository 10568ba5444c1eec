"""A finished second network, an attack of one's own, a head, and another form when deployed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import AttackBudget, Method, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import AffineLogits, CosineHead, kl_divergence


def away_from_before(logits: Tensor, y: Tensor, ctx: StepContext) -> Tensor:
    """What the attack climbs: errors, and the distance from what was predicted before; [B]. It may be asked again."""
    return F.cross_entropy(logits, y, reduction="none") + kl_divergence(ctx.natural_logits(), logits)


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """After a clean first epoch, cross-entropy under attack and the teacher's opinion; smaller radii for the tail."""
    radius = 1 - 0.5 * data.ranks / (data.num_classes - 1)

    def budget(given: AttackBudget, y: Tensor, ctx: StepContext) -> AttackBudget:
        return given._replace(epsilon=given.epsilon * radius[y])

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        logits = outputs.adversarial.logits
        value = F.cross_entropy(logits, y)
        if options["listens"]:
            value = value + options["weight"] * kl_divergence(ctx.teacher_logits(), logits).mean()
        return value

    return Method(
        objective=away_from_before,
        attack_budget=budget,
        loss=loss,
        crafts=lambda epoch, epochs: epoch > 1 or epochs == 1,
        head=partial(CosineHead, scale=8.0),
        deploy=lambda network, info: AffineLogits(network, 0.5, 0 * info.counts),
    )
