"""Losses on logits that more than one method uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Criterion, StepContext


def balanced_softmax(counts: Tensor, tau: float = 1.0) -> Criterion:
    """Balanced softmax: mean cross-entropy of z + tau * ln n (Ren et al., NeurIPS 2020, arXiv 2007.10740).

    Equal to outer logit adjustment with the same tau: the two differ by a constant on all logits.

    Args:
        counts: training images per label, shape [C]; a count of 0 is read as 1 (REAT's released code).
        tau: factor on ln n.
    """
    shift = tau * counts.clamp_min(1).log()

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits + shift.to(logits.dtype), y)

    return loss


def kl_divergence(reference: Tensor, logits: Tensor, epsilon: float = 0.0) -> Tensor:
    """KL(softmax(reference) || softmax(logits)) per image, shape [B]; gradient flows through both arguments.

    Built from the log-softmax of ``logits``: written out as p (ln p - ln q), rounding near the start of an
    attack flips signs.

    Args:
        reference, logits: shape [B, C].
        epsilon: added to softmax(logits) inside its logarithm (RoBal's released code uses 1e-12).
    """
    log_q = F.log_softmax(logits, dim=1) if epsilon == 0 else (F.softmax(logits, dim=1) + epsilon).log()
    # A log target keeps the gradient finite where the reference's softmax is exactly 0.
    return F.kl_div(log_q, F.log_softmax(reference, dim=1), reduction="none", log_target=True).sum(dim=1)


def natural_divergence(logits: Tensor, y: Tensor, ctx: StepContext) -> Tensor:
    """TRADES' inner objective: KL from the clean prediction, which carries no gradient; [B]."""
    return kl_divergence(ctx.natural_logits(), logits)


def margin_cross_entropy(
    logits: Tensor,
    y: Tensor,
    margins: Tensor,
    scale: float = 1.0,
    bias: Tensor | None = None,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of scale * (z - m_y 1_y) + b (LDAM, RoBal).

    Args:
        logits: shape [B, C].
        margins: margin of each class, shape [C].
        scale: factor on the shifted logits.
        bias: added after scaling, shape [C].
        class_weight: weight of each class, shape [C]; the mean is divided by the sum of the labels' weights.
    """
    own = margins.to(logits.dtype)[y].unsqueeze(1)
    shifted = scale * logits.scatter_add(1, y.unsqueeze(1), -own)
    if bias is not None:
        shifted = shifted + bias.to(logits.dtype)
    return F.cross_entropy(shifted, y, weight=None if class_weight is None else class_weight.to(logits.dtype))


def ldam_margins(counts: Tensor, largest: float = 0.5) -> Tensor:
    """m_c = n_c**(-1/4), scaled so that the rarest class gets ``largest`` (Cao et al., NeurIPS 2019); [C]."""
    margins = counts**-0.25
    return margins * (largest / margins.max())


def sigmoid_focal(logits: Tensor, y: Tensor, gamma: float, class_weight: Tensor | None = None) -> Tensor:
    """Focal loss in its sigmoid form: (1/B) sum_i w_{y_i} sum_k (1 - p_k)**gamma (-ln p_k), p_k = sigmoid(t_k z_k).

    t_k is +1 for the label and -1 otherwise; the weight of the *true* class multiplies all C terms (Lin et al.,
    ICCV 2017, arXiv 1708.02002; Cui et al., CVPR 2019, arXiv 1901.05555).

    Args:
        logits: shape [B, C].
        gamma: focusing exponent.
        class_weight: shape [C]; none: 1.
    """
    sign = 2 * F.one_hot(y, logits.shape[1]).to(logits.dtype) - 1
    log_p = F.logsigmoid(sign * logits)
    # (1 - p)**gamma by way of ln(1 - p): no infinite slope where p rounds to 1.
    per_image = (-(gamma * F.logsigmoid(-sign * logits)).exp() * log_p).sum(dim=1)
    if class_weight is not None:
        per_image = class_weight.to(logits.dtype)[y] * per_image
    return per_image.mean()


def softmax_focal(logits: Tensor, y: Tensor, gamma: float, class_weight: Tensor | None = None) -> Tensor:
    """Focal loss in its softmax form: the mean of (1 - e**-l)**gamma l, l the (weighted) cross-entropy of an image.

    LDAM-DRW's released code; the class weight is inside the exponential too. RoBal's code halves it.

    Args:
        logits: shape [B, C].
        gamma: focusing exponent.
        class_weight: shape [C]; none: 1.
    """
    weight = None if class_weight is None else class_weight.to(logits.dtype)
    per_image = F.cross_entropy(logits, y, weight=weight, reduction="none")
    # The smallest number instead of 0, whose power would have an infinite slope for gamma below 1.
    missing = (-torch.expm1(-per_image)).clamp_min(torch.finfo(logits.dtype).tiny)
    return (missing**gamma * per_image).mean()


def class_temperatures(counts: Tensor, tau: float) -> Tensor:
    """a_c = (n_max / n_c)**tau (CDT; Ye et al. 2020, arXiv 2001.01385); [C]."""
    return (counts.max() / counts) ** tau


def class_means(values: Tensor, y: Tensor, classes: int) -> Tensor:
    """Mean of per-image ``values`` [B] in each class; 0 for a class that is absent from the batch; [C]."""
    total = torch.zeros(classes, dtype=values.dtype, device=values.device).scatter_add(0, y, values)
    count = torch.zeros_like(total).scatter_add(0, y, torch.ones_like(values))
    return total / (count + 1e-10)
