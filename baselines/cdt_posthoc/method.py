"""Post-hoc classifier re-scaling (after Ye et al. 2020; RoBal's study) of a finished network: (W h + b) / n_c**tau."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ltrobust_bench.api import Method, TrainInfo
from ltrobust_bench.longtail import AffineLogits


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Nothing is trained; the finished network is deployed with divided logits, the bias divided too."""
    factors = data.counts ** -options["tau"]
    return Method(deploy=lambda network, info: AffineLogits(network, factors, torch.zeros_like(factors)))
