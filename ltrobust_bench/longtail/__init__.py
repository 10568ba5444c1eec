"""Pieces that long-tailed methods share, each written once."""

from ltrobust_bench.longtail.averaging import average_into
from ltrobust_bench.longtail.cosine import AffineLogits, CosineHead
from ltrobust_bench.longtail.effective_number import effective_number, effective_weights, normalised_inverse
from ltrobust_bench.longtail.losses import (
    balanced_softmax,
    class_means,
    class_temperatures,
    kl_divergence,
    ldam_margins,
    margin_cross_entropy,
    natural_divergence,
    sigmoid_focal,
    softmax_focal,
)
from ltrobust_bench.longtail.mixing import Box, beta_draw, box_around, chance, draw_box, paste, permutation
from ltrobust_bench.longtail.samplers import ClassAware, balanced_subset, class_frequencies, weighted_draws

__all__ = [
    "AffineLogits",
    "Box",
    "ClassAware",
    "CosineHead",
    "average_into",
    "beta_draw",
    "box_around",
    "chance",
    "draw_box",
    "paste",
    "permutation",
    "balanced_softmax",
    "balanced_subset",
    "class_frequencies",
    "class_means",
    "class_temperatures",
    "effective_number",
    "effective_weights",
    "kl_divergence",
    "ldam_margins",
    "margin_cross_entropy",
    "natural_divergence",
    "normalised_inverse",
    "sigmoid_focal",
    "softmax_focal",
    "weighted_draws",
]
