"""Adversarial training with a factor on the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, TrainInfo, adversarial


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Cross-entropy inside, a multiple of it outside."""

    def criterion(logits: Tensor, y: Tensor) -> Tensor:
        return options["factor"] * F.cross_entropy(logits, y)

    return Method(loss=adversarial(criterion))
