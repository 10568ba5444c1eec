"""A radius per class rank, around any method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ltrobust_bench.api import AttackBudget, Plugin, StepContext, TrainInfo


class Gentle(Plugin):
    """Radius, step and start of each image's attack times a factor of its class, [C]."""

    def __init__(self, factors: Tensor) -> None:
        self.factors = factors

    def attack_budget(self, budget: AttackBudget, y: Tensor, ctx: StepContext) -> AttackBudget:
        return AttackBudget(*(term * self.factors[y] for term in budget))


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """From 1 for the largest class down to ``least`` for the smallest, by rank."""
    share = data.ranks / (data.num_classes - 1)
    return Gentle(1 - (1 - options["least"]) * share)
