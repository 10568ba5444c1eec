"""Confidence intervals: Wilson within one run, Student's t over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from ltrobust_bench.scores.groups import rank_groups


def wilson(successes: ArrayLike, total: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a proportion (Wilson, JASA 22, 1927), without continuity correction.

    Args:
        successes, total: counts of any one broadcastable shape; they need not be whole numbers.
        level: coverage.

    Returns:
        Lower and upper bound, fractions in [0, 1] of that shape; NaN where ``total`` is 0.
    """
    successes, total = np.asarray(successes, dtype=float), np.asarray(total, dtype=float)
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        p = successes / total
        centre = (p + z2 / (2 * total)) / (1 + z2 / total)
        half = np.sqrt(z2 * (p * (1 - p) / total + z2 / (4 * total**2))) / (1 + z2 / total)
    return np.clip(centre - half, 0.0, 1.0)[()], np.clip(centre + half, 0.0, 1.0)[()]


def t_interval(values: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Student's t interval of the mean of ``values``, in their unit.

    Meant for one value per seed: intervals that pool the seeds' images leave out the spread between
    seeds and under-cover. If all seeds see the same test images, it is an interval of the mean on these images: what
    other images would have given is not in it.

    Args:
        values: shape [S] or [S, ...]; the interval is taken over the first axis.
        level: coverage.

    Returns:
        Lower and upper bound, shape [...]; NaN with a single seed.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        nothing = np.full(values.shape[1:], np.nan)[()]
        return nothing, nothing
    mean, half = values.mean(axis=0), half_width(values.std(axis=0, ddof=1), len(values), level)
    return mean - half, mean + half


def half_width(std: np.ndarray, seeds: ArrayLike, level: float = 0.95) -> np.ndarray:
    """Half the width of Student's t interval of a mean over ``seeds`` values (2 or more) of this standard deviation."""
    from scipy.special import stdtrit

    return stdtrit(np.subtract(seeds, 1), 0.5 + level / 2) * std / np.sqrt(seeds)


@dataclass(frozen=True)
class Spread:
    """Numbers over seeds; all fields have the shape of one seed's numbers.

    Attributes:
        mean: over the seeds.
        std: sample standard deviation over the seeds; NaN with a single one.
        low, high: 95 % interval of the mean: t over seeds, or within a single run Wilson; NaN where there is none.
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


def over_seeds(values: ArrayLike, images: ArrayLike, lowest: ArrayLike = 0.0) -> Spread:
    """Mean and spread of fractions over seeds.

    Args:
        values: fractions, or differences of fractions, shape [S, ...].
        images: test images behind each number, broadcastable to [...], see :func:`effective_images`; NaN for what is no
            proportion (the lowest of several accuracies, a difference): one seed gives it no interval.
        lowest: smallest possible value, 0 or -1, broadcastable to [...]; intervals end there, and at 1.
    """
    values = np.asarray(values, dtype=float)
    mean = values.mean(axis=0)
    if len(values) == 1:
        low, high = wilson(mean * images, images)
        return Spread(mean, np.full_like(mean, np.nan), low, high)
    std = values.std(axis=0, ddof=1)
    half = half_width(std, len(values))
    return Spread(mean, std, np.maximum(mean - half, lowest), np.minimum(mean + half, 1.0))


def spreads(values: np.ndarray, seeds: Sequence[int], images: ArrayLike, lowest: ArrayLike = 0.0) -> list[Spread]:
    """:func:`over_seeds` of each of several methods, those with equally many seeds at once.

    Args:
        values: of all runs, those of one method after another, shape [sum(seeds), ...].
        seeds: how many runs each method has.
        images, lowest: as for :func:`over_seeds`.
    """
    counts = np.asarray(seeds, dtype=int)
    starts = np.cumsum(counts) - counts
    found: dict[int, Spread] = {}
    for count in np.unique(counts):
        methods = np.flatnonzero(counts == count)
        spread = over_seeds(values[starts[methods] + np.arange(count)[:, None]], images, lowest)
        parts = zip(spread.mean, spread.std, spread.low, spread.high, strict=True)
        found |= {int(method): Spread(*part) for method, part in zip(methods, parts, strict=True)}
    return [found[method] for method in range(len(seeds))]


def images_behind(train_counts: Sequence[int], test_counts: Sequence[int]) -> dict[str, float]:
    """Test images behind each metric that is a proportion: ``overall``, ``balanced`` and the groups that there are, see
    :func:`effective_images`.

    Args:
        train_counts, test_counts: images per label.
    """
    tests = np.asarray(test_counts)
    groups = {name: effective_images(tests[members]) for name, members in rank_groups(train_counts).items()}
    return {"overall": float(tests.sum()), "balanced": effective_images(tests), **groups}


def effective_images(counts: Sequence[int] | np.ndarray) -> float:
    """Images that give a balanced accuracy its variance if all classes have one accuracy: all of them if classes have
    equally many. NaN without classes.

    Args:
        counts: test images per class; classes without any are left out.
    """
    tests = np.asarray(counts, dtype=float)
    tests = tests[tests > 0]
    return len(tests) ** 2 / float((1 / tests).sum()) if len(tests) else float("nan")
