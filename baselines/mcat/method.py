"""MCAT (arXiv 2605.02183), what its released code computes: plain adversarial training and a term that pulls the class
vectors towards a simplex. Its manifold term has no gradient to the image or the weights, so it is not here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust_bench.api import Method, Outputs, StepContext, TrainInfo


def geometry(weight: Tensor) -> Tensor:
    """G = (1 / C**2) sum_cj (cos(W_c, W_j) - t_cj)**2, t = 1 on the diagonal and -1 / (C - 1) off it. Scalar.

    Args:
        weight: class vectors W, shape [C, D].
    """
    classes = len(weight)
    directions = F.normalize(weight, dim=1)
    target = torch.full((classes, classes), -1 / (classes - 1), dtype=weight.dtype, device=weight.device)
    return ((directions @ directions.T - target.fill_diagonal_(1.0)) ** 2).mean()


class LinearHead:
    """Makes the network's linear head and keeps hold of it: the loss looks at its class vectors."""

    made: nn.Linear

    def __call__(self, features: int, classes: int) -> nn.Module:
        self.made = nn.Linear(features, classes)
        return self.made


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Cross-entropy of the adversarial images + ``beta_g`` times the geometry term."""
    head = LinearHead()

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        return F.cross_entropy(outputs.adversarial.logits, y) + options["beta_g"] * geometry(head.made.weight)

    return Method(loss=loss, head=head)
