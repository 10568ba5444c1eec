"""HAT (Rade & Moosavi-Dezfooli, ICLR 2022): images beyond the attacked ones get the labels that a helper, trained
without attacks, gives the attacked ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltrobust_bench.api import Group, Method, Network, Outputs, StepContext, TrainInfo, cross_entropy, everything
from ltrobust_bench.longtail import kl_divergence, natural_divergence


def helped(
    robust: str, reach: float, beta: float, gamma: float, outputs: Outputs, y: Tensor, ctx: StepContext
) -> Tensor:
    """CE(z, y) + beta R + gamma CE(f(x_h), y_h) with x_h = x + h (x_adv - x), which may leave [0, 1], and y_h the
    helper's label of x_adv; scalar.

    Args:
        robust: R is the mean KL(z || z') (``kl``), gradient through both, or CE(z', y) (``ce``).
        reach: h.
        beta, gamma: weights of the terms.
    """
    clean, adversarial = outputs.clean.logits, outputs.adversarial.logits
    labels = ctx.teacher_logits().argmax(dim=1)
    beyond = outputs.of(outputs.x + reach * (outputs.x_adv - outputs.x)).logits
    term = kl_divergence(clean, adversarial).mean() if robust == "kl" else F.cross_entropy(adversarial, y)
    return F.cross_entropy(clean, y) + beta * term + gamma * F.cross_entropy(beyond, labels)


def norms_apart(network: Network) -> Iterable[nn.Parameter | Group]:
    """Everything, and no weight decay on what batch norms scale and shift by."""
    norms = [p for module in network.modules() if isinstance(module, _BatchNorm) for p in module.parameters()]
    apart = {id(p) for p in norms}
    return [*(p for p in network.parameters() if id(p) not in apart), Group(norms, weight_decay=0.0)]


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """HAT; its helper is the run that the card's base names."""
    robust, terms = options["robust"], tuple(options[name] for name in ("reach", "beta", "gamma"))

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        return helped(robust, *terms, outputs, y, ctx)

    return Method(
        objective=natural_divergence if robust == "kl" else cross_entropy,
        loss=loss,
        trains=everything if options["decay_norms"] else norms_apart,
    )
