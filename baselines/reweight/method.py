"""Re-weighted cross-entropy under adversarial training: inverse frequency, or inverse effective number (CB)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F

from ltrobust_bench.api import Method, TrainInfo, adversarial
from ltrobust_bench.longtail import effective_weights, normalised_inverse


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Cross-entropy with class weights of mean 1; the mean over a batch is divided by the sum of its weights."""
    if options["weights"] == "inverse":
        weights = normalised_inverse(data.counts)
    else:
        weights = effective_weights(data.counts, options["beta"])
    return Method(loss=adversarial(lambda z, y: F.cross_entropy(z, y, weight=weights.to(z.dtype))))
