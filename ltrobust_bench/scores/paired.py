"""Whether two classifiers differ: paired tests image by image, one per seed pair. Arrays in, arrays out.

A run with seed s is compared with another method's run with seed s on the same test images (McNemar's exact test). A
difference counts only if every seed pair shows it: the p-value of several pairs is their largest (an
intersection-union test), so one lucky seed of several decides nothing. A single pair is a test of two runs: training
with another seed may turn it round. Images count alike in the test, classes in the difference:
where the two point apart, or where seed pairs do, nothing is shown and the p-value is 1.

Two methods that answer few images differently, or none, have next to no spread between images, and yet a test set of
some images tells no more than so much. So no standard error is smaller than that of Agresti and Min (Statistics in
Medicine 24, 2005): half an image more in each cell of the table of pairs, spread over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, ndtr, stdtr

from ltrobust_bench.scores.intervals import effective_images, half_width

LEVEL = 0.05
NORMAL = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
DISCORDANT = 6
"""Fewest images that McNemar's exact test takes for a difference at ``LEVEL``, if one model alone gets them right: 2 of
2^6 outcomes are as extreme."""


@dataclass(frozen=True)
class Paired:
    """Differences of pairs of methods, the first minus the second; every field has shape [P].

    Attributes:
        seeds: how many seeds the two share; without any the numbers are NaN, and ``p_value`` is 1.
        difference: of class-balanced accuracies, mean over the seed pairs, a fraction.
        half: half the width of its 95 % interval: the wider of t over seed pairs and the paired interval of images
            within a seed. Seeds differ in training, all see the same images: neither spread replaces the other.
        p_value: largest exact McNemar p-value of the seed pairs.
        image_error: standard error of the difference within a seed, from the test images, mean over the seed pairs; at
            least :func:`adjusted_variance`'s.
        seed_error: standard error of the mean over the seed pairs; NaN with one.
    """

    seeds: np.ndarray
    difference: np.ndarray
    half: np.ndarray
    p_value: np.ndarray
    image_error: np.ndarray
    seed_error: np.ndarray

    @property
    def sign(self) -> np.ndarray:
        """1 where the interval lies above 0, -1 where below, else 0."""
        return np.where(np.abs(self.difference) > self.half, np.sign(self.difference), 0)


def paired(
    bits: Sequence[np.ndarray],
    methods: Sequence[Sequence[int]],
    labels: np.ndarray,
    first: ArrayLike,
    second: ArrayLike,
) -> Paired:
    """Compare pairs of methods over the seeds that they share.

    Args:
        bits: for each seed, which images are correct in the runs with it: bool, shape [R, T].
        methods: for each seed, the method of each of its runs: int, shape [R], each at most once.
        labels: of the images, shape [T]; classes weigh the same.
        first, second: the methods of each pair, int, shape [P].

    Example:
        >>> bits = np.asarray([[1, 1, 1, 0], [0, 0, 1, 0]], dtype=bool)
        >>> paired([bits], [[0, 1]], np.asarray([0, 0, 1, 1]), [0], [1]).difference
        array([0.5])
    """
    first, second = np.asarray(first, dtype=int), np.asarray(second, dtype=int)
    found = np.full((4, len(bits), len(first)), np.nan)
    for seed, (rows, own) in enumerate(zip(bits, methods, strict=True)):
        row = np.full(np.concatenate([first, second, own]).max() + 1, -1)
        row[own] = np.arange(len(rows))
        both = np.flatnonzero((row[first] >= 0) & (row[second] >= 0))
        found[:, seed, both] = _one_seed(rows, labels, row[first[both]], row[second[both]])
    return _over_seeds(*found)


def _over_seeds(difference: np.ndarray, half: np.ndarray, p_value: np.ndarray, sign: np.ndarray) -> Paired:
    """Pairs from their seed pairs, each shape [S, P], NaN where a seed is not shared."""
    seeds = (~np.isnan(difference)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, within = np.nansum(difference, axis=0) / seeds, np.nansum(half, axis=0) / seeds
        std = np.sqrt(np.nansum((difference - mean) ** 2, axis=0) / (seeds - 1))
        across = half_width(std, np.maximum(seeds, 2))
    agree = np.fmin.reduce(sign, axis=0) == np.fmax.reduce(sign, axis=0)
    return Paired(
        seeds=seeds,
        difference=mean,
        half=np.where(seeds > 1, np.maximum(within, across), within),
        p_value=np.where(agree, np.fmax.reduce(p_value, axis=0), 1.0),
        image_error=within / NORMAL,
        seed_error=np.where(seeds > 1, std / np.sqrt(np.maximum(seeds, 1)), np.nan),
    )


def equivalence(found: Paired, margin: float, images: float = np.inf) -> np.ndarray:
    """p-values of the claim that differences lie within ``margin``, by two one-sided tests (Schuirmann, Journal of
    Pharmacokinetics and Biopharmaceutics 15, 1987): the larger one, of the test images (normal) and of the seed pairs
    (t), since neither spread replaces the other.

    Args:
        margin: a fraction, above 0.
        images: test images that the classes' mean rests on. If the methods did differ by the margin, so many images
            would show nothing of it with probability (1 - margin)^images: no p-value can be lower.

    Returns:
        shape [P]; 1 without a seed in common.
    """
    unseen = (1 - margin) ** images if margin < 1 else 0.0
    of_images = np.maximum(unseen, tost(found.difference, found.image_error, margin))
    seeds = tost(found.difference, found.seed_error, margin, np.maximum(found.seeds - 1, 1))
    both = np.fmax(of_images, np.where(found.seeds > 1, seeds, 0.0))
    return np.where(found.seeds > 0, both, 1.0)


def tost(difference: ArrayLike, error: ArrayLike, margin: float, freedom: ArrayLike = np.inf) -> np.ndarray:
    """The larger p-value of two one-sided tests, that a mean is above ``-margin`` and that it is below ``margin``.

    Args:
        difference, error: the mean and its standard error.
        freedom: degrees of freedom of Student's t; infinity: normal.
    """
    mean, spread = np.asarray(difference, dtype=float), np.asarray(error, dtype=float)
    distance = margin - np.abs(mean)  # the nearer bound decides
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(spread > 0, distance / spread, np.copysign(np.inf, distance))
    many = np.isinf(np.asarray(freedom, dtype=float))
    return np.where(many, ndtr(-t), stdtr(np.where(many, 1.0, freedom), -t))[()]


def resolution(bits: Sequence[np.ndarray], methods: Sequence[Sequence[int]], labels: np.ndarray, count: int) -> float:
    """The smallest difference that images and seeds can resolve: half the width of the 95 % interval of a difference,
    median over methods that follow one another. One comparison: a correction over many makes it larger.

    Args:
        bits, methods, labels: as for :func:`paired`.
        count: of the methods, M.

    Returns:
        A fraction; NaN if no two neighbours share a seed. Of one seed it falls as one over the square root of the
        images, and is never below ``DISCORDANT`` images: fewer that only one of two models gets right are no
        significant difference.
    """
    first = np.arange(count - 1)
    half = paired(bits, methods, labels, first, first + 1).half
    if not np.isfinite(half).any():
        return float("nan")
    return max(float(np.nanmedian(half)), DISCORDANT / effective_images(np.unique(labels, return_counts=True)[1]))


def _one_seed(bits: np.ndarray, labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """For pairs of one seed's runs: class-balanced difference, half the width of its 95 % normal interval, McNemar's
    p-value, and the difference's sign.

    With whole numbers as long as possible: runs that do not differ have difference and width 0. Classes with equally
    many images are taken together.
    """
    one, other, difference, variance, adjusted = (np.zeros(len(first)) for _ in range(5))
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    for images in np.unique(counts):
        inside = np.flatnonzero(counts[classes] == images)
        own = bits[:, inside[np.argsort(classes[inside], kind="stable")]]
        right = own.reshape(len(own), -1, images).sum(axis=2, dtype=np.float64)
        some = own[:, own.any(axis=0)]  # images that nobody gets right are many on a robust board
        common, products = _both(some, first, second), right @ right.T
        here, there = right.sum(axis=1)[first] - common, right.sum(axis=1)[second] - common
        squares = products.diagonal()
        class_squares = squares[first] + squares[second] - 2 * products[first, second]
        one += here
        other += there
        difference += (here - there) / images
        variance += (here + there - class_squares / images) / images**2
        adjusted += adjusted_variance(here + there, class_squares, images, right.shape[1], len(counts))
    sign = np.sign(difference)
    p_value = np.where(np.sign(one - other) == sign, mcnemar(one, other), 1.0)
    error = np.sqrt(np.maximum(variance, adjusted)) / len(counts)
    return difference / len(counts), NORMAL * error, p_value, sign


def _both(bits: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How many images both of a pair get right, shape [P]: few pairs one by one, many as a product of all with all."""
    if len(first) <= len(bits):
        return (bits[first] & bits[second]).sum(axis=1, dtype=np.float64)
    own = bits.astype(np.float32)  # sums of float32 are exact up to 2 ** 24
    return np.asarray((own @ own.T)[first, second].astype(np.float64))


def adjusted_variance(
    discordant: ArrayLike, squares: ArrayLike, images: ArrayLike, classes: ArrayLike, of: int
) -> np.ndarray:
    """Agresti and Min's variance of a difference of paired proportions: of the sum over classes, each with its share of
    two more images, of which one is answered differently, half in each direction.

    Args:
        discordant: images of these classes that only one of two models gets right.
        squares: sum over these classes of (won - lost)^2.
        images: test images of each of these classes.
        classes: how many classes these are.
        of: all classes; over its square, the result is that of the mean.

    Example:
        >>> float(adjusted_variance(3, 9, 98, 1, 1))  # of 98 images 3 are won: (3 + 1 - 3^2 / 100) / 100^2
        0.000391
    """
    more = np.asarray(images, dtype=float) + 2 / of
    return (np.asarray(discordant) + np.asarray(classes) / of - np.asarray(squares) / more) / more**2


def mcnemar(first_only: ArrayLike, second_only: ArrayLike) -> np.ndarray:
    """p-values of exact two-sided McNemar tests (binomial, p = 1/2) from the images that only one of two models gets
    right.

    Args:
        first_only, second_only: whole numbers, of one shape, which is that of the result.
    """
    first, second = (np.asarray(images).astype(np.int64) for images in (first_only, second_only))
    few, total = np.minimum(first, second), first + second
    # The binomial distribution function, by the incomplete beta function; there is none of no images.
    return np.where(total > 0, np.minimum(1.0, 2 * betainc(np.maximum(total - few, 1), few + 1, 0.5)), 1.0)[()]


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979), at most 1.

    Args:
        p_values: shape [..., M]; the correction goes over the last axis.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, axis=-1, kind="stable")
    factors = np.arange(values.shape[-1], 0, -1)
    stepped = np.maximum.accumulate(np.minimum(1.0, np.take_along_axis(values, order, axis=-1) * factors), axis=-1)
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, stepped, axis=-1)
    return adjusted


def better(bits: Sequence[np.ndarray], methods: Sequence[Sequence[int]], labels: np.ndarray, count: int) -> np.ndarray:
    """Which of several methods are resolved better than which: significant after Holm's correction over all comparisons
    of the worse one, and the interval leaves out 0.

    Args:
        bits, methods, labels: as for :func:`paired`.
        count: of the methods, M.

    Returns:
        bool, shape [M, M]: [i, j] is true if the data tell that i beats j.
    """
    first, second = np.triu_indices(count, 1)
    found = paired(bits, methods, labels, first, second)
    p_value, sign = np.ones((count, count)), np.zeros((count, count))
    p_value[first, second] = p_value[second, first] = found.p_value
    sign[first, second], sign[second, first] = found.sign, -found.sign
    others = ~np.eye(count, dtype=bool)
    corrected = np.ones((count, count))
    corrected[others] = holm(p_value[others].reshape(count, -1)).ravel()
    return (corrected.T < LEVEL) & (sign > 0)


def contrast(values: Sequence[np.ndarray], labels: np.ndarray) -> Paired:
    """The mean of a weighted sum of bits, image by image, over seeds: what :func:`paired` says of the difference of two
    methods, of any number of them.

    Args:
        values: for each seed the sum of each image, float, shape [T].
        labels: of the images, shape [T]; classes weigh the same.

    Returns:
        Fields of shape [1]. The p-value is McNemar's where all sums are -1, 0 or 1, else that of a normal mean.

    Example:
        >>> gain = np.asarray([1.0, 1.0, 0.0, 0.0])  # of four images two are won
        >>> contrast([gain], np.asarray([0, 0, 1, 1])).difference
        array([0.5])
    """
    found = np.stack([_one_sum(np.asarray(own, dtype=float), labels) for own in values], axis=1)
    return _over_seeds(*found[..., None])


def _one_sum(values: np.ndarray, labels: np.ndarray) -> tuple[float, float, float, float]:
    """As :func:`_one_seed`, of the sums of one seed."""
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums, squares = np.bincount(classes, values), np.bincount(classes, values**2)
    mean = float((sums / counts).mean())
    variance = ((squares - sums**2 / counts).clip(0) / counts**2).sum()
    adjusted = adjusted_variance(squares, sums**2, counts, 1, len(counts)).sum()
    error = float(np.sqrt(max(variance, adjusted))) / len(counts)
    if np.isin(values, (-1.0, 0.0, 1.0)).all():
        won, lost = int((values > 0).sum()), int((values < 0).sum())
        p_value = float(mcnemar(won, lost)) if np.sign(won - lost) == np.sign(mean) else 1.0
    else:
        p_value = float(2 * ndtr(-abs(mean) / error))
    return mean, NORMAL * error, p_value, float(np.sign(mean))
