"""CMO (Park et al., CVPR 2022) around any training: a box of an image drawn for the tail, pasted into images drawn as
they are, before they are attacked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ltrobust_bench.api import Mixed, Plugin, StepContext, TrainInfo
from ltrobust_bench.longtail import beta_draw, chance, class_frequencies, draw_box, paste, weighted_draws


class MinorityOversampling(Plugin):
    """Foregrounds are partners that are drawn beside the host's images, classes with frequencies n^power; targets are
    mixed by area.

    Args:
        counts: training images per class n, shape [C].
        power: of the class frequencies.
        alpha: the box covers about 1 - l of the image, l of Beta(alpha, alpha).
        probability: of a batch to be mixed.
        begin, end: shares of the budget after which batches are mixed and no longer mixed.
    """

    def __init__(
        self, counts: np.ndarray, power: float, alpha: float, probability: float, begin: float, end: float
    ) -> None:
        self.frequencies = class_frequencies(counts, power)
        self.alpha, self.probability, self.begin, self.end = alpha, probability, begin, end

    def order(self, order: np.ndarray, labels: np.ndarray, epoch: int, generator: np.random.Generator) -> np.ndarray:
        return np.stack([order, weighted_draws(labels, len(order), self.frequencies, generator)])

    def batch(self, x: Tensor, y: Tensor, ctx: StepContext) -> tuple[Tensor, Tensor | Mixed]:
        active = self.begin * ctx.epochs < ctx.epoch <= self.end * ctx.epochs
        if not (active and chance(self.probability)):
            return x, y
        foreground, theirs = ctx.partners
        mixed, share = paste(x, foreground, draw_box(*x.shape[-2:], beta_draw(self.alpha)))
        return mixed, Mixed(y, theirs, share)


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """CMO around any host."""
    exponent = options["exponent"]
    power = -exponent if options["drawn"] == "classes" else 1 - exponent
    chosen = (options[name] for name in ("alpha", "probability", "begin", "end"))
    return MinorityOversampling(data.counts.cpu().numpy(), power, *chosen)
