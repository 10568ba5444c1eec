"""MAIL (Wang et al., NeurIPS 2021): after a burn-in, adversarial images weigh more the nearer they are to a mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import kl_divergence, natural_divergence

WRITTEN_FOR = 120  # epochs of the authors' schedule, in which their first weighted epoch counts
README = {"at": (-0.5, 10.0), "trades": (0.0, 2.0)}
"""Bias and slope of each host."""


def probability_margins(logits: Tensor, y: Tensor) -> Tensor:
    """mu_i = max_{c != y} q_ic - q_iy with q = softmax(logits), in [-1, 1]; without gradient, [B]."""
    q = F.softmax(logits.detach(), dim=1)
    others = q.scatter(1, y[:, None], -1.0).amax(dim=1)
    return others - q.gather(1, y[:, None]).squeeze(1)


def margin_weights(logits: Tensor, y: Tensor, bias: float, slope: float, normalise: bool = False) -> Tensor:
    """omega_i = 3 sigmoid(slope (mu_i + bias)), without gradient; [B].

    Args:
        logits: of the adversarial images, shape [B, C].
        normalise: divide by the batch's mean.
    """
    weights = 3 * torch.sigmoid(slope * (probability_margins(logits, y) + bias))
    return weights / weights.mean() if normalise else weights


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """MAIL-TRADES or MAIL-AT; before the first weighted epoch (in proportion to the budget), the host itself."""
    bias, slope = README[options["host"]]
    bias = bias if options["bias"] is None else options["bias"]
    slope = slope if options["slope"] is None else options["slope"]

    def weights(logits: Tensor, y: Tensor, ctx: StepContext) -> Tensor:
        if (ctx.epoch - 1) * WRITTEN_FOR < (options["first_weighted_epoch"] - 1) * ctx.epochs:
            return torch.ones_like(y, dtype=logits.dtype)
        return margin_weights(logits, y, bias, slope, options["normalise"])

    def plain(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        logits = outputs.adversarial.logits
        return (weights(logits, y, ctx) * F.cross_entropy(logits, y, reduction="none")).mean()

    def trades(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        clean, logits = outputs.clean.logits, outputs.adversarial.logits
        divergence = weights(logits, y, ctx) * kl_divergence(clean, logits)
        return F.cross_entropy(clean, y) + options["beta"] * divergence.mean()

    if options["host"] == "at":
        return Method(loss=plain)
    return Method(objective=natural_divergence, loss=trades)
