"""Head, medium and tail: thirds of the classes by training count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def by_size(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Labels from the largest class to the smallest, ties by label, int, shape [C].

    Args:
        counts: training images per label, shape [C].
    """
    return np.argsort(-np.asarray(counts, dtype=np.int64), kind="stable")


def ranks(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Rank of each label (0: the largest class, ties by label), int, shape [C].

    Args:
        counts: training images per label, shape [C].
    """
    order = by_size(counts)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank


def rank_groups(counts: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Labels of the head, medium and tail classes, each from large to small.

    Head and tail are the first and last floor(C/3) ranks, medium is the rest: 3/4/3 of 10 classes,
    33/34/33 of 100. Count thresholds (>100, 20-100, <20) would leave groups empty on these data sets.

    Args:
        counts: training images per label, shape [C].

    Returns:
        ``{"head": ..., "medium": ..., "tail": ...}``; empty for fewer than 3 classes.
    """
    order = by_size(counts)
    third = len(order) // 3
    if third == 0:
        return {}
    return {"head": order[:third], "medium": order[third:-third], "tail": order[-third:]}
