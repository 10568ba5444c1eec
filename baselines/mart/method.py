"""MART (Wang et al., ICLR 2020): boosted cross-entropy on adversarial examples, and a KL term weighted by how
uncertain the clean prediction is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, OuterLoss, Outputs, StepContext, TrainInfo


def mart_loss(beta: float) -> OuterLoss:
    """mean[CE(f(x_adv), y) - ln(1.0001 - q_k + 1e-12)] + beta * mean[KL(p || q) (1.0000001 - p_y)].

    p and q are the clean and adversarial predictions, k the most probable wrong class of q; 1e-12 is added to q
    inside the KL's logarithm. Gradient flows through p everywhere.
    """

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        adversarial = outputs.adversarial.logits
        p = F.softmax(outputs.clean.logits, dim=1)
        q = F.softmax(adversarial, dim=1)
        wrong = q.scatter(1, y[:, None], -1.0).amax(dim=1)
        boosted = F.cross_entropy(adversarial, y) - (1.0001 - wrong + 1e-12).log().mean()
        divergence = F.kl_div((q + 1e-12).log(), p, reduction="none").sum(dim=1)
        uncertainty = 1.0000001 - p.gather(1, y[:, None]).squeeze(1)
        return boosted + beta * (divergence * uncertainty).mean()

    return loss


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """MART with weight ``beta``."""
    return Method(loss=mart_loss(options["beta"]))
