"""FAAL (Zhang et al., CVPR 2024): a finished network is trained on with the class weights that are worst for it, among
all that are not too far from equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import class_means, kl_divergence, natural_divergence

HALVINGS = 80  # of an interval, down to the spacing of float64


def worst_distribution(values: Tensor, radius: float, among: Tensor | None = None) -> Tensor:
    """The p that maximises sum_c a_c p_c over the simplex with KL(u || p) <= r, u uniform; float64 [C].

    It is p_c proportional to 1 / (nu - a_c), nu > max a being the root of KL(u || p) = r: found by bisection of
    s = ln((nu - max a) / (max a - min a)), in logarithms throughout. Equal values give u, and so does r = 0.

    Args:
        values: a, shape [C].
        radius: r, at least 0.
        among: the classes that take part, bool [C]; others get 0. Default: all.
    """
    a = values.double()
    among = torch.ones_like(a, dtype=torch.bool) if among is None else among
    classes = among.sum().double()
    if radius == 0:
        return among / classes
    below = torch.where(among, a, -math.inf).amax() - a
    spread = torch.where(among, below, 0.0).amax().clamp_min(torch.finfo(a.dtype).tiny)
    below = torch.where(among, below / spread, 1.0).log()

    def log_distribution(s: Tensor) -> Tensor:
        return F.log_softmax(torch.where(among, -torch.logaddexp(s, below), -math.inf), dim=0)

    # At `low` the least p alone takes KL to r; at `high` Hoeffding's bound on it, exp(-2 s) / 8, is r.
    low = -classes * (radius + classes.log())
    high = a.new_tensor(-math.log(8 * radius) / 2)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        divergence = -classes.log() - torch.where(among, log_distribution(middle), 0.0).sum() / classes
        near = divergence < radius
        low, high = torch.where(near, low, middle), torch.where(near, middle, high)
    return log_distribution((low + high) / 2).exp()


def batch_counts(y: Tensor, classes: int) -> Tensor:
    """k_c, images of each class in the batch; float64 [C]."""
    ones = torch.ones_like(y, dtype=torch.float64)
    return torch.zeros(classes, dtype=ones.dtype, device=y.device).scatter_add(0, y, ones)


def class_margins(logits: Tensor, y: Tensor) -> Tensor:
    """m_c, the mean of max_{j != y} q_j - q_y over the batch's images of class c, q = softmax(logits); -1 for a class
    that is absent. Without gradient, float64 [C]."""
    q = F.softmax(logits.detach(), dim=1)
    margins = q.scatter(1, y[:, None], -1.0).amax(dim=1) - q.gather(1, y[:, None]).squeeze(1)
    classes = logits.shape[1]
    means = class_means(margins.double(), y, classes)
    return torch.where(batch_counts(y, classes) > 0, means, -1.0)


def batch_sum_weights(logits: Tensor, y: Tensor, radius: float) -> Tensor:
    """The released code's worst distribution: of sums over the batch, a_c = k_c m_c, over all C classes; [C]."""
    classes = logits.shape[1]
    return worst_distribution(batch_counts(y, classes) * class_margins(logits, y), radius)


def class_normalised_weights(logits: Tensor, y: Tensor, radius: float) -> Tensor:
    """Ours: of class means, a_c = m_c, over the classes in the batch; 0 for the others; [C]."""
    return worst_distribution(class_margins(logits, y), radius, batch_counts(y, logits.shape[1]) > 0)


PerImage = Callable[[Outputs, Tensor], Tensor]
"""(outputs, y [B]) -> a loss per image [B]."""


def plain(outputs: Outputs, y: Tensor) -> Tensor:
    """CE(f(x_adv), y)."""
    return F.cross_entropy(outputs.adversarial.logits, y, reduction="none")


def trades(beta: float) -> PerImage:
    """beta KL(f(x) || f(x_adv)) + CE(f(x), y)."""

    def loss(outputs: Outputs, y: Tensor) -> Tensor:
        clean = outputs.clean.logits
        divergence = kl_divergence(clean, outputs.adversarial.logits)
        return beta * divergence + F.cross_entropy(clean, y, reduction="none")

    return loss


def mart(beta: float) -> PerImage:
    """MART's terms: beta KL(p || q) (1.0000001 - p_y) + CE(f(x_adv), y) - ln(1.0001 - q_k + 1e-12)."""

    def loss(outputs: Outputs, y: Tensor) -> Tensor:
        adversarial = outputs.adversarial.logits
        p, q = F.softmax(outputs.clean.logits, dim=1), F.softmax(adversarial, dim=1)
        wrong = q.scatter(1, y[:, None], -1.0).amax(dim=1)
        boosted = F.cross_entropy(adversarial, y, reduction="none") - (1.0001 - wrong + 1e-12).log()
        divergence = F.kl_div((q + 1e-12).log(), p, reduction="none").sum(dim=1)
        return beta * divergence * (1.0000001 - p.gather(1, y[:, None]).squeeze(1)) + boosted

    return loss


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """FAAL around a host's loss; it starts from the run that the card's base names."""
    radius, official = options["radius"], options["form"] == "batch_sum"
    host = {"at": plain, "trades": trades(options["beta"]), "mart": mart(options["beta"])}[options["host"]]

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        logits, each = outputs.adversarial.logits, host(outputs, y)
        if official:
            weights = batch_sum_weights(logits, y, radius)
            return data.num_classes * (weights.to(each.dtype)[y] * each).mean()
        weights = class_normalised_weights(logits, y, radius)
        return (weights.to(each.dtype) * class_means(each, y, data.num_classes)).sum()

    if options["host"] == "at":
        return Method(loss=loss)
    return Method(objective=natural_divergence, loss=loss)
