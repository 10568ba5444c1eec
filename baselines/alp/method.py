"""Adversarial logit pairing (Kannan et al. 2018) in the two forms of RoBal's released code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, Outputs, StepContext, TrainInfo


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """CE(f(x_adv), y) + beta |f(x_adv) - f(x)| / B, the norm taken over the whole batch."""

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        adversarial, clean = outputs.adversarial.logits, outputs.clean.logits
        value = F.cross_entropy(adversarial, y)
        if options["pair"] == "probabilities":
            adversarial, clean = adversarial.softmax(dim=1), clean.softmax(dim=1)
        return value + options["beta"] * (adversarial - clean).norm() / len(y)

    return Method(loss=loss)
