"""Learnable weight scaling (Kang et al., ICLR 2020; RoBal's study): one factor per class on a finished head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust_bench.api import Method, Network, TrainInfo
from ltrobust_bench.longtail import ClassAware


class ScaledHead(nn.Module):
    """z_c = s_c (W_c h), or s_c (W_c h + b_c) with bias; s starts at 1.

    Args:
        features, classes: D, C.
        with_bias: the original keeps the trained bias, RoBal's code drops it.
    """

    def __init__(self, features: int, classes: int, with_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, features))
        self.bias = nn.Parameter(torch.zeros(classes)) if with_bias else None
        self.scales = nn.Parameter(torch.ones(classes))

    def forward(self, h: Tensor) -> Tensor:
        """Logits of features ``h`` [B, D], shape [B, C]."""
        return self.scales * F.linear(h, self.weight, self.bias)


def scales_only(network: Network) -> Iterable[nn.Parameter]:
    """The factors are trained, nothing else."""
    head = network.head
    assert isinstance(head, ScaledHead)
    return [head.scales]


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Plain adversarial training of the factors with class-aware draws."""
    cycles = ClassAware()
    return Method(
        head=lambda features, classes: ScaledHead(features, classes, options["bias"]),
        sampler=cycles,
        trains=scales_only,
        memory={"sampler": cycles},
    )
