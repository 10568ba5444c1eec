"""TAET (Wang et al., CVPR 2025): clean cross-entropy first, then the hierarchical equalisation loss (HARL) on
adversarial examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import class_means

WRITTEN_FOR = 100  # epochs of the authors' schedule, in which their first HARL epoch counts


def harl(logits: Tensor, y: Tensor, alpha: float, beta: float, gamma: float, absent: str = "zero") -> Tensor:
    """alpha * mean_c l_c + beta * mean_c (l_c - mean)^2 + gamma * sum_c (l_c / sum_j l_j)^2.

    l_c is the mean cross-entropy of the batch's images of class c.

    Args:
        absent: ``zero``: a class that is absent counts with loss 0 (the released code); ``skip``: it does not count.
    """
    classes = logits.shape[1]
    means = class_means(F.cross_entropy(logits, y, reduction="none"), y, classes)
    seen = logits.new_zeros(classes).scatter(0, y, 1.0)
    present = torch.ones_like(seen) if absent == "zero" else seen
    average = (present * means).sum() / present.sum()
    variance = (present * (means - average) ** 2).sum() / present.sum()
    shares = means / (means.sum() + 1e-10)
    return alpha * average + beta * variance + gamma * (shares**2).sum()


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Stage 1 up to the first HARL epoch (in proportion to the budget), then stage 2."""

    def second_stage(epoch: int, epochs: int) -> bool:
        return (epoch - 1) * WRITTEN_FOR >= (options["first_harl_epoch"] - 1) * epochs

    def crafts(epoch: int, epochs: int) -> bool:
        return options["stage1"] == "adv" or second_stage(epoch, epochs)

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        if second_stage(ctx.epoch, ctx.epochs):
            values = (options["alpha"], options["beta"], options["gamma"])
            return harl(outputs.adversarial.logits, y, *values, absent=options["absent"])
        batch = outputs.adversarial if options["stage1"] == "adv" else outputs.clean
        return F.cross_entropy(batch.logits, y)

    return Method(loss=loss, crafts=crafts)
