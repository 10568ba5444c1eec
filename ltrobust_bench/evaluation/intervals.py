"""Confidence intervals: Wilson within one run, Student's t over seeds."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike


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
    seeds and under-cover.

    Args:
        values: shape [S] or [S, ...]; the interval is taken over the first axis.
        level: coverage.

    Returns:
        Lower and upper bound, shape [...]; NaN with a single seed.
    """
    from scipy.special import stdtrit

    values = np.asarray(values, dtype=float)
    seeds = len(values)
    if seeds < 2:
        nothing = np.full(values.shape[1:], np.nan)[()]
        return nothing, nothing
    mean = values.mean(axis=0)
    half = stdtrit(seeds - 1, 0.5 + level / 2) * values.std(axis=0, ddof=1) / np.sqrt(seeds)
    return mean - half, mean + half
