"""RobustLT (Zhang et al., CVPR 2026): a training radius per class, larger for rare classes, growing over the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ltrobust_bench.api import AttackBudget, Plugin, StepContext, TrainInfo


def radius_factors(counts: Tensor, alpha: float) -> Tensor:
    """eps_c^max / eps = (1 - alpha) + alpha r_c / sum_j pi_j r_j with r_c = sqrt(ln(n_max / n_c)); their mean weighted
    by class frequency is 1; [C]. On balanced data every factor is 1."""
    r = (counts.max() / counts).log().sqrt()
    mean = (counts / counts.sum() * r).sum()
    return (1 - alpha) + alpha * torch.where(mean > 0, r / mean, torch.ones_like(r))


def ramp(epoch: int, epochs: int, beta: float) -> float:
    """min((e - 1) / (beta T), 1): the first epoch has no perturbation; 1 throughout for beta = 0."""
    return 1.0 if beta == 0 else min((epoch - 1) / (beta * epochs), 1.0)


class RobustLT(Plugin):
    """Replaces the host attack's radius and step by those of each image's class.

    Args:
        factors: eps_c^max / eps, [C].
        beta: share of the budget over which the radius grows.
        start: the random start keeps the host's amplitude (``base``), or takes the class's (``class``).
    """

    def __init__(self, factors: Tensor, beta: float, start: str) -> None:
        self.factors, self.beta, self.start = factors, beta, start

    def attack_budget(self, budget: AttackBudget, y: Tensor, ctx: StepContext) -> AttackBudget:
        factor = self.factors[y] * ramp(ctx.epoch, ctx.epochs, self.beta)
        epsilon, step_size = budget.epsilon * factor, budget.step_size * factor
        return AttackBudget(epsilon, step_size, budget.start if self.start == "base" else epsilon)


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """RobustLT around any host."""
    return RobustLT(radius_factors(data.counts, options["alpha"]), options["beta"], options["start"])
