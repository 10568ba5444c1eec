"""TDE-sim (after Tang et al., NeurIPS 2020; RoBal's study): a normalised head, and inference without the part of
a feature that lies along the training features' running direction."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust_bench.api import Method, Network, TrainInfo
from ltrobust_bench.longtail import CosineHead


class TDEHead(CosineHead):
    """Training logits s * <h/|h|, W_c/(|W_c| + gamma)>; in train mode the running sum e <- mu e + mean(h/|h|) is kept.

    Args:
        features, classes: D, C.
        scale, gamma: see :class:`~ltrobust_bench.longtail.CosineHead`.
        mu: decay of e, which is a sum (it tends to 1 / (1 - mu) times the mean direction).
        alpha: how much of the direction is removed at inference.
    """

    direction: Tensor

    def __init__(self, features: int, classes: int, scale: float, gamma: float, mu: float, alpha: float) -> None:
        super().__init__(features, classes, scale, gamma)
        self.mu, self.alpha = mu, alpha
        self.register_buffer("direction", torch.zeros(features))

    def forward(self, h: Tensor) -> Tensor:
        """Training logits, [B, C]."""
        if self.training:
            with torch.no_grad():
                self.direction.mul_(self.mu).add_(F.normalize(h, dim=1).mean(dim=0))
        return super().forward(h)

    def inference(self, h: Tensor) -> Tensor:
        """s * (h/|h| - alpha cos(h, e) e) . W_c / (|W_c| + gamma), with e not normalised; [B, C]."""
        unit, e = F.normalize(h, dim=1), self.direction
        along = (unit @ e / e.norm().clamp_min(1e-12)).unsqueeze(1)
        weight = self.weight / (self.weight.norm(dim=1, keepdim=True) + self.gamma)
        return self.scale * F.linear(unit - self.alpha * along * e, weight)


class Inference(nn.Module):
    """The network with its head's inference form."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits of pixels, [B, C]."""
        head = self.network.head
        assert isinstance(head, TDEHead)
        return head.inference(self.network.backbone(x))


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Cross-entropy on the training logits; the inference form is deployed."""
    values = {name: options[name] for name in ("scale", "gamma", "mu", "alpha")}
    return Method(head=partial(TDEHead, **values), deploy=lambda network, info: Inference(network))
