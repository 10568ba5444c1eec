"""CalFAT (Chen et al., NeurIPS 2022), of one client: logits calibrated by the class counts, in the loss and in the
attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Criterion, Method, StepContext, TrainInfo, adversarial
from ltrobust_bench.longtail import kl_divergence, natural_divergence


def class_prior(counts: Tensor, factor: float) -> Tensor:
    """a_c = factor * ln(n_c + 1e-7), [C]."""
    return factor * (counts + 1e-7).log()


def calibrated_cross_entropy(prior: Tensor, scale: float) -> Criterion:
    """CE(scale * (z + a), y): with the authors' scale 10 and factor 1/10 it is balanced softmax of 10 z.

    Args:
        prior: a, shape [C].
    """

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(scale * (logits + prior.to(logits.dtype)), y)

    return loss


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """The calibrated loss on adversarial images that climb the KL divergence of calibrated predictions."""
    prior = class_prior(data.counts, options["prior"])

    def calibrated_divergence(logits: Tensor, y: Tensor, ctx: StepContext) -> Tensor:
        own = prior.to(logits.dtype)
        return kl_divergence(ctx.natural_logits() + own, logits + own)

    objective = calibrated_divergence if options["attack_prior"] else natural_divergence
    return Method(objective=objective, loss=adversarial(calibrated_cross_entropy(prior, options["scale"])))
