"""Effective number of samples (Cui et al., CVPR 2019, arXiv 1901.05555)."""

from __future__ import annotations

from torch import Tensor


def effective_number(n: Tensor, beta: Tensor | float) -> Tensor:
    """E = (1 - beta**n) / (1 - beta), shape [C].

    Args:
        n: samples per class, shape [C].
        beta: in [0, 1), one value or one per class.
    """
    return (1 - beta**n) / (1 - beta)


def normalised_inverse(effective: Tensor, epsilon: float = 0.0) -> Tensor:
    """Class weights C * v / sum(v) with v = 1 / (E + epsilon); their mean is 1."""
    inverse = 1 / (effective + epsilon)
    return len(effective) * inverse / inverse.sum()


def effective_weights(counts: Tensor, beta: float) -> Tensor:
    """Class weights by the inverse effective number, mean 1 (class-balanced loss, deferred re-weighting); [C]."""
    return normalised_inverse(effective_number(counts, beta))
