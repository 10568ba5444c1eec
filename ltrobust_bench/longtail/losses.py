"""Losses on logits that more than one method uses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Criterion


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


def margin_cross_entropy(
    logits: Tensor, y: Tensor, margins: Tensor, scale: float = 1.0, bias: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of scale * (z - m_y 1_y) + b (LDAM, RoBal).

    Args:
        logits: shape [B, C].
        margins: margin of each class, shape [C].
        scale: factor on the shifted logits.
        bias: added after scaling, shape [C].
    """
    own = margins.to(logits.dtype)[y].unsqueeze(1)
    shifted = scale * logits.scatter_add(1, y.unsqueeze(1), -own)
    return F.cross_entropy(shifted if bias is None else shifted + bias.to(logits.dtype), y)
