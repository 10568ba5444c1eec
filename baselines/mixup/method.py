"""mixup (Zhang et al., ICLR 2018) around any training: images and labels are mixed before they are attacked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ltrobust_bench.api import Mixed, Plugin, StepContext, TrainInfo
from ltrobust_bench.longtail import beta_draw, permutation


class Mixup(Plugin):
    """l x + (1 - l) x_partner with targets mixed likewise, partners a permutation of the batch, l one number a batch of
    Beta(alpha, alpha).

    Args:
        alpha: above 0.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def batch(self, x: Tensor, y: Tensor, ctx: StepContext) -> tuple[Tensor, Mixed]:
        share, partners = beta_draw(self.alpha), permutation(x)
        return share * x + (1 - share) * x[partners], Mixed(y, y[partners], share)


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """mixup around any host."""
    return Mixup(options["alpha"])
