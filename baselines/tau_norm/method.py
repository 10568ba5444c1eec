"""tau-normalised classifier (Kang et al., ICLR 2020; RoBal's study): W_c / |W_c|**tau of a finished head, no bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust_bench.api import Method, Network, TrainInfo


class TauNormalised(nn.Module):
    """Logits (W_c / |W_c|**tau) h; the bias is dropped.

    Args:
        weight: W, shape [C, D].
        tau: 0 leaves the weights as they are, 1 makes them unit vectors.
    """

    trained: Tensor

    def __init__(self, weight: Tensor, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.register_buffer("trained", weight.detach())

    @property
    def weight(self) -> Tensor:
        """W_c / |W_c|**tau, shape [C, D]; made anew of the trained weights: what is deployed has no others."""
        return self.trained / torch.linalg.vector_norm(self.trained, dim=1, keepdim=True) ** self.tau

    def forward(self, h: Tensor) -> Tensor:
        """Logits of features ``h`` [B, D], shape [B, C]."""
        return F.linear(h, self.weight)


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Nothing is trained; the finished network is deployed with the normalised head."""

    def deploy(network: Network, info: TrainInfo) -> nn.Module:
        weight = network.head.weight
        assert isinstance(weight, Tensor)
        return Network(network.backbone, TauNormalised(weight, options["tau"]))

    return Method(deploy=deploy)
