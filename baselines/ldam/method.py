"""LDAM (Cao et al., NeurIPS 2019) under adversarial training, with or without deferred re-weighting (DRW)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ltrobust_bench.api import Method, OuterLoss, Outputs, StepContext, TrainInfo, linear
from ltrobust_bench.longtail import CosineHead, effective_weights, ldam_margins, margin_cross_entropy


def ldam_loss(counts: Tensor, *, max_margin: float, s: float, beta: float, drw_start: float | None) -> OuterLoss:
    """CE(s (z - m_y 1_y), y) with m_c ~ n_c**(-1/4); from the fraction ``drw_start`` of the budget on weighted by the
    inverse effective number, before it exactly unweighted."""
    margins, ones = ldam_margins(counts, max_margin), torch.ones_like(counts)
    deferred = effective_weights(counts, beta)

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        on = drw_start is not None and ctx.epoch >= drw_start * ctx.epochs
        weights = deferred if on else ones
        return margin_cross_entropy(outputs.adversarial.logits, y, margins, scale=s, class_weight=weights)

    return loss


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """LDAM; ``normalised`` takes the original's head of cosines."""
    loss = ldam_loss(
        data.counts,
        max_margin=options["max_margin"],
        s=options["s"],
        beta=options["beta"],
        drw_start=options["drw_start"],
    )
    return Method(loss=loss, head=CosineHead if options["normalised"] else linear)
