"""Accuracy as a deployment with another mix of classes would see it: class accuracies weighed by a prior.

Ranks and boards stay balanced over classes; a prior is only another reading of the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltrobust_bench.errors import UsageError
from ltrobust_bench.reading import read_text
from ltrobust_bench.scores.groups import by_size
from ltrobust_bench.scores.intervals import Spread, over_seeds

PRIORS = ("train", "uniform", "reversed")
"""Priors that need no file: as the training images, all classes alike, and the training counts upside down."""


def prior_named(name: str, train_counts: Sequence[int]) -> np.ndarray:
    """A prior over classes, shape [C], that adds up to 1.

    Args:
        name: of ``PRIORS``, or a file with one number of at least 0 for each class, in label order, separated by
            commas, blanks or lines.
        train_counts: training images per label, shape [C].

    Raises:
        UsageError: if there is no such file, or not one number for each class.

    Example:
        >>> prior_named("reversed", [60, 30, 10])
        array([0.1, 0.3, 0.6])
    """
    counts = np.asarray(train_counts, dtype=float)
    if name == "uniform":
        weights = np.ones_like(counts)
    elif name in PRIORS:
        weights = counts if name == "train" else upside_down(counts)
    else:
        weights = _read(Path(name), len(counts))
    return np.asarray(weights / weights.sum())


def upside_down(counts: np.ndarray) -> np.ndarray:
    """The counts, the largest for the class with the fewest and so on, equal ones by label; done twice it changes
    nothing, if no two are equal."""
    order, turned = by_size(counts), np.empty_like(counts)
    turned[order] = counts[order[::-1]]
    return turned


def _read(path: Path, classes: int) -> np.ndarray:
    try:
        text = read_text(path)
    except (OSError, ValueError):
        raise UsageError(f"prior {str(path)!r} is none of {', '.join(PRIORS)}, and no readable file.") from None
    try:
        weights = np.asarray([float(word) for word in text.replace(",", " ").split()])
    except ValueError as error:
        raise UsageError(f"{path}: {error}; write one number for each class.") from None
    if len(weights) != classes:
        raise UsageError(f"{path} has {len(weights)} numbers for {classes} classes; write one for each.")
    if not np.isfinite(weights).all() or weights.min() < 0 or not weights.sum():
        raise UsageError(f"{path}: a prior has finite numbers of at least 0, and not only zeros.")
    return weights


def under(prior: np.ndarray, per_class: np.ndarray, test_counts: Sequence[int]) -> Spread:
    """Accuracy under a prior over seeds, with its 95 % interval: t over seeds, or with one seed Wilson's with as many
    images as give the weighted mean its variance, 1 / sum(prior^2 / images).

    Args:
        prior: shape [C]; classes without test images are left out of it.
        per_class: class accuracies, fractions, shape [S, ..., C].
        test_counts: test images per label, shape [C].

    Returns:
        Fields of shape [...]. Under the uniform prior the mean is the balanced accuracy.
    """
    tests = np.asarray(test_counts, dtype=float)
    weights = np.where(tests > 0, prior, 0.0)
    weights = weights / weights.sum()
    seen = weights > 0
    images = 1 / float((weights[seen] ** 2 / tests[seen]).sum())
    return over_seeds(per_class[..., seen] @ weights[seen], images)
