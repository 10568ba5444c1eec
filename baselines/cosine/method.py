"""Cosine classifier under adversarial training (RoBal's study), plain or with a uniform margin (cos-HE)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from ltrobust_bench.api import Method, TrainInfo, adversarial
from ltrobust_bench.longtail import AffineLogits, CosineHead, margin_cross_entropy


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Without margin the head itself is scaled; with one it outputs cosines and the loss scales them."""
    scale, margin = options["scale"], options["margin"]
    if margin == 0:
        return Method(head=partial(CosineHead, scale=scale))
    margins = torch.full_like(data.counts, margin)
    at = scale if options["evaluate_at"] == "scale" else 1.0
    return Method(
        loss=adversarial(lambda z, y: margin_cross_entropy(z, y, margins, scale=scale)),
        head=CosineHead,
        deploy=lambda network, info: AffineLogits(network, at, torch.zeros_like(info.counts)),
    )
