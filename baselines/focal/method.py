"""Focal loss under adversarial training (Lin et al., ICCV 2017; RoBal's study): sigmoid form by default, and a
classifier bias that starts at the log-odds of the class prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust_bench.api import Method, TrainInfo, adversarial
from ltrobust_bench.longtail import sigmoid_focal, softmax_focal


def starting_bias(counts: Tensor) -> Tensor:
    """-ln((1 - pi_c) / pi_c), [C]."""
    prior = counts / counts.sum()
    return -((1 - prior) / prior).log()


def focal_loss(form: str, gamma: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of logits [B, C] and labels [B] in one of its released forms: ``sigmoid``, ``softmax`` (half the mean),
    ``ldam`` (the mean)."""
    if form == "sigmoid":
        return lambda z, y: sigmoid_focal(z, y, gamma)
    share = 0.5 if form == "softmax" else 1.0
    return lambda z, y: share * softmax_focal(z, y, gamma)


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Focal loss with exponent ``gamma`` in the form ``form``."""

    def head(features: int, classes: int) -> nn.Module:
        layer = nn.Linear(features, classes)
        with torch.no_grad():
            layer.bias.copy_(starting_bias(data.counts))
        return layer

    return Method(loss=adversarial(focal_loss(options["form"], options["gamma"])), head=head)
