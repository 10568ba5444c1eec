"""Every number of a board, derived from bits: per class, per group, worst classes. Fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltrobust_bench.scores.bits import count_by_class
from ltrobust_bench.scores.groups import rank_groups


@dataclass(frozen=True)
class Metrics:
    """Accuracies in [0, 1]; every field has the leading shape [...] of the bits it was made from.

    Classes without test images are NaN in ``per_class`` and left out of everything else. The groups are NaN
    with fewer than 3 classes.

    Attributes:
        overall: share of the images.
        balanced: mean over classes.
        per_class: by label, shape [..., C].
        head, medium, tail: mean over the classes of the group (see ``rank_groups``).
        worst_class: lowest class accuracy.
        worst_tenth: mean of the ceil(C/10) lowest class accuracies.
        head_tail_gap: head minus tail. No measure of quality: a model without any accuracy has gap 0.
    """

    overall: np.ndarray
    balanced: np.ndarray
    per_class: np.ndarray
    head: np.ndarray
    medium: np.ndarray
    tail: np.ndarray
    worst_class: np.ndarray
    worst_tenth: np.ndarray
    head_tail_gap: np.ndarray


def metrics_from_bits(bits: np.ndarray, labels: np.ndarray, counts_train: Sequence[int] | np.ndarray) -> Metrics:
    """Metrics of correctness bits.

    Args:
        bits: "classified correctly", bool, shape [..., T].
        labels: shape [T], in any order, values in [0, C).
        counts_train: training images per label, shape [C]; they define the groups.

    Raises:
        ValueError: if the shapes do not fit or a label has no training count.
    """
    bits, labels = np.asarray(bits, dtype=bool), np.asarray(labels, dtype=np.int64)
    classes = len(counts_train)
    if bits.shape[-1:] != labels.shape:
        raise ValueError(f"bits of shape {bits.shape} do not fit {len(labels)} labels")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels {labels.min()} to {labels.max()} do not fit {classes} training counts")
    ordered = bits[..., np.argsort(labels, kind="stable")]
    counts_test = np.bincount(labels, minlength=classes)
    found = shares(count_by_class(ordered, counts_test.tolist()), counts_test)
    return metrics_from_classes(found, counts_test, counts_train)


def metrics_from_classes(
    per_class: np.ndarray, counts_test: Sequence[int] | np.ndarray, counts_train: Sequence[int] | np.ndarray
) -> Metrics:
    """Metrics of class accuracies.

    Args:
        per_class: fractions, shape [..., C].
        counts_test, counts_train: images per label, shape [C].
    """
    tests = np.asarray(counts_test)
    seen = tests > 0
    accuracy = per_class[..., seen]
    lowest = np.sort(accuracy, axis=-1)[..., : -(-len(tests) // 10)]
    groups = {
        name: _mean(per_class[..., members[seen[members]]]) for name, members in rank_groups(counts_train).items()
    }
    nothing = np.full(per_class.shape[:-1], np.nan)[()]
    head, tail = groups.get("head", nothing), groups.get("tail", nothing)
    return Metrics(
        overall=accuracy @ tests[seen] / tests.sum() if seen.any() else nothing,
        balanced=_mean(accuracy),
        per_class=per_class,
        head=head,
        medium=groups.get("medium", nothing),
        tail=tail,
        worst_class=_mean(lowest[..., :1]),
        worst_tenth=_mean(lowest),
        head_tail_gap=head - tail,
    )


def shares(correct: np.ndarray, counts_test: np.ndarray) -> np.ndarray:
    """Of how many images of each class are correct, the share; NaN for classes without images."""
    accuracy = np.full(correct.shape, np.nan)
    np.divide(correct, counts_test, out=accuracy, where=counts_test > 0)
    return accuracy


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis; NaN if it is empty."""
    return values.mean(axis=-1) if values.shape[-1] else np.full(values.shape[:-1], np.nan)[()]
