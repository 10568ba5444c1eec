"""Pieces that long-tailed methods share, each written once."""

from ltrobust_bench.longtail.cosine import AffineLogits, CosineHead
from ltrobust_bench.longtail.effective_number import effective_number, normalised_inverse
from ltrobust_bench.longtail.losses import balanced_softmax, kl_divergence, margin_cross_entropy

__all__ = [
    "AffineLogits",
    "CosineHead",
    "balanced_softmax",
    "effective_number",
    "kl_divergence",
    "margin_cross_entropy",
    "normalised_inverse",
]
