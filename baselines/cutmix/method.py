"""CutMix (Yun et al., ICCV 2019) around any training: a box of another image in each, before they are attacked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ltrobust_bench.api import Mixed, Plugin, StepContext, TrainInfo
from ltrobust_bench.longtail import beta_draw, chance, draw_box, paste, permutation


class CutMix(Plugin):
    """Each image with a box of its partner's, partners a permutation of the batch, one box a batch; targets are mixed
    by area.

    Args:
        alpha: the box covers about 1 - l of the image, l of Beta(alpha, alpha).
        probability: of a batch to be mixed.
    """

    def __init__(self, alpha: float, probability: float) -> None:
        self.alpha, self.probability = alpha, probability

    def batch(self, x: Tensor, y: Tensor, ctx: StepContext) -> tuple[Tensor, Tensor | Mixed]:
        if not chance(self.probability):
            return x, y
        partners = permutation(x)
        mixed, share = paste(x, x[partners], draw_box(*x.shape[-2:], beta_draw(self.alpha)))
        return mixed, Mixed(y, y[partners], share)


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """CutMix around any host."""
    return CutMix(options["alpha"], options["probability"])
