"""LBGAT (Cui et al., ICCV 2021): logits of attacked images follow those that a second network, trained beside on clean
images, gives the clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, Outputs, StepContext, TrainInfo, linear
from ltrobust_bench.longtail import kl_divergence, natural_divergence


def guided(beta: float, outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
    """CE(g(x), y) + mean (f(x') - g(x))^2 over images and classes + beta mean KL(f(x) || f(x')); gradient through all,
    g included; scalar. With beta = 0 the clean batch is not passed through f.

    Args:
        beta: weight of TRADES' term.
    """
    adversarial, guide = outputs.adversarial.logits, outputs.companion(outputs.x).logits
    loss = F.cross_entropy(guide, y) + F.mse_loss(adversarial, guide)
    return loss if beta == 0 else loss + beta * kl_divergence(outputs.clean.logits, adversarial).mean()


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """LBGAT with a companion of the network's own kind."""

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        return guided(options["beta"], outputs, y, ctx)

    return Method(objective=natural_divergence, loss=loss, companion=linear)
