"""TRADES (Zhang et al., ICML 2019): CE(f(x), y) + beta * mean KL(f(x) || f(x_adv)); the attack climbs the KL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, OuterLoss, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import kl_divergence, natural_divergence


def trades_loss(beta: float) -> OuterLoss:
    """The outer loss; gradient flows through both arguments of the KL."""

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        clean = outputs.clean.logits
        return F.cross_entropy(clean, y) + beta * kl_divergence(clean, outputs.adversarial.logits).mean()

    return loss


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """TRADES with weight ``beta``."""
    return Method(objective=natural_divergence, loss=trades_loss(options["beta"]))
