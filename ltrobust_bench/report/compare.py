"""Whether two methods differ: paired tests image by image, one per seed pair, and Holm's correction over methods.

Each method's run with seed s is compared with the other's run with seed s on the same test images (McNemar's exact
test). A difference counts as resolved only if every seed pair shows it: the p-value of several pairs is their largest
(an intersection-union test), so one lucky seed decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, stdtrit

from ltrobust_bench.errors import UsageError
from ltrobust_bench.records.schema import Record
from ltrobust_bench.scores.groups import rank_groups
from ltrobust_bench.scores.intervals import t_interval

LEVEL = 0.05
NORMAL = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Difference:
    """One method's accuracy minus another's, on one group of classes.

    Attributes:
        group: ``all`` (balanced over classes), ``head``, ``medium`` or ``tail``.
        first, second: names of the methods.
        difference: mean over the seed pairs, a fraction.
        interval: 95 %: the wider of t over seed pairs and the paired interval of images within a seed.
        p_value: largest exact McNemar p-value of the seed pairs.
        p_holm: the same after Holm's correction over the compared methods.
        seeds: the paired seeds.
    """

    group: str
    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_holm: float
    seeds: tuple[int, ...]

    @property
    def resolved(self) -> bool:
        """Whether the data tell the two apart: significant after correction, and the interval leaves out 0."""
        low, high = self.interval
        return self.p_holm < LEVEL and (low > 0 or high < 0)


def mcnemar(first_only: ArrayLike, second_only: ArrayLike, least: float = 0.0) -> np.ndarray:
    """p-values of exact two-sided McNemar tests (binomial, p = 1/2) from the images that only one of two models gets
    right.

    Args:
        first_only, second_only: whole numbers, of one shape, which is that of the result.
        least: where Hoeffding's bound (JASA 58, 1963, theorem 1) is below it, the bound is good enough.
    """
    first, second = (np.asarray(images).astype(np.int64) for images in (first_only, second_only))
    few, total = np.minimum(first, second), first + second
    base = few.max(initial=0) + 1
    # Boards have tens of thousands of pairs; equal ones are computed once.
    keys, inverse = np.unique(total * base + few, return_inverse=True)
    totals, fews = np.divmod(keys, base)
    p_value = 2 * np.exp(-((totals - 2 * fews) ** 2) / np.maximum(2 * totals, 1))
    exact = p_value >= least
    totals, fews = totals[exact], fews[exact]
    # The binomial distribution function, by the incomplete beta function; there is none of no images.
    p_value[exact] = np.minimum(1.0, np.where(totals > 0, 2 * betainc(totals - fews, fews + 1, 0.5), 1.0))
    return p_value[inverse].reshape(few.shape)[()]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979), in the given order, at most 1."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def paired_interval(first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """95 % normal interval of the class-balanced difference of two models on the same images.

    Args:
        first, second: correct or not, bool, shape [T].
        labels: shape [T]; classes weigh the same.
    """
    change = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    labels = np.asarray(labels)
    classes = np.unique(labels)
    means = np.array([change[labels == c].mean() for c in classes])
    variances = np.array([change[labels == c].var() / (labels == c).sum() for c in classes])
    centre, half = means.mean(), NORMAL * np.sqrt(variances.sum()) / len(classes)
    return float(centre - half), float(centre + half)


def compare(entries: Sequence[tuple[str, Sequence[Record]]], attack: str = "union") -> list[Difference]:
    """Every later entry against the first, group by group; Holm's correction goes over the later entries.

    Args:
        entries: name and runs of each method, all on one board.
        attack: ``clean``, an attack, or ``union``.

    Raises:
        UsageError: with fewer than two entries, or no seed in common.
    """
    if len(entries) < 2:
        raise UsageError("a comparison needs two methods.")
    (reference, runs), found = entries[0], []
    for name, others in entries[1:]:
        theirs = {r.run.seed: r for r in others}
        pairs = [(r, theirs[r.run.seed]) for r in sorted(runs, key=lambda r: r.run.seed) if r.run.seed in theirs]
        if not pairs:
            raise UsageError(f"{reference} and {name} have no seed in common; run one of them with the other's seeds.")
        found.append(_differences(reference, name, pairs, attack))
    corrected = [holm([group.p_value for group in column]) for column in zip(*found, strict=True)]
    return [
        replace(difference, p_holm=corrected[g][m])
        for m, differences in enumerate(found)
        for g, difference in enumerate(differences)
    ]


@dataclass(frozen=True)
class _Pairs:
    """Sums over the seeds that two entries share, of the first minus the second; one place per pair of entries, ordered
    as by ``np.triu_indices``."""

    shared: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    halves: np.ndarray
    smallest: np.ndarray
    largest: np.ndarray
    p_value: np.ndarray


def resolved_pairs(entries: Sequence[Sequence[Record]], attack: str = "union") -> np.ndarray:
    """Which entries of a board are resolved better than which: [i, j] is true if the data tell that i beats j.

    The same tests as :func:`compare`, over all classes, for all pairs at once. Holm's correction for a pair goes over
    all comparisons of ``j``.

    Args:
        entries: the runs of each entry, all on one board.
        attack: ``clean``, an attack, or ``union``.

    Returns:
        bool, shape [E, E].
    """
    count = len(entries)
    first, second = np.triu_indices(count, 1)
    # Holm's correction rejects whatever is below LEVEL over the number of comparisons, however far below.
    sums = _sums(entries, attack, LEVEL / count)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, half = sums.total / sums.shared, sums.halves / sums.shared
        spread = np.sqrt(np.maximum(sums.squares - sums.shared * mean**2, 0) / (sums.shared - 1))
        by_seed = stdtrit(np.maximum(sums.shared - 1, 1), 0.975) * spread / np.sqrt(sums.shared)
    half = np.where(sums.shared > 1, np.maximum(half, by_seed), half)
    p_value = np.full((count, count), 2.0)  # the diagonal: last in its row, in nobody's family, and never small
    tested = np.where((sums.shared > 0) & (sums.smallest == sums.largest), sums.p_value, 1.0)
    p_value[first, second] = p_value[second, first] = tested
    ordered = np.sort(p_value, axis=1)
    # Holm: below the first that is too large for its place, all are significant.
    too_large = ordered * np.maximum(count - 1 - np.arange(count), 1) >= LEVEL
    limit = np.take_along_axis(ordered, too_large.argmax(axis=1, keepdims=True), axis=1)
    above = np.zeros((count, count), dtype=bool)
    above[first, second], above[second, first] = mean - half > 0, -mean - half > 0
    return (p_value < limit).T & above


def _sums(entries: Sequence[Sequence[Record]], attack: str, least: float) -> _Pairs:
    labels = entries[0][0].labels()
    by_seed = [{r.run.seed: r for r in runs} for runs in entries]
    count = len(entries)
    pairs = count * (count - 1) // 2
    shared, total, squares, halves, p_value = (np.zeros(pairs) for _ in range(5))
    smallest, largest = np.full(pairs, np.inf), np.full(pairs, -np.inf)
    for seed in sorted({seed for runs in by_seed for seed in runs}):
        here = np.flatnonzero([seed in runs for runs in by_seed])
        first, second = np.triu_indices(len(here), 1)
        # All of them, as a rule: then nothing has to be picked out.
        at: Any = slice(None) if len(here) == count else _place(here[first], here[second], count)
        packed = np.stack([by_seed[i][seed].packed(attack) for i in here])
        bits = np.unpackbits(packed, axis=1, count=len(labels)).view(bool)
        one, other, difference, variance = _one_seed(bits, labels, first, second)
        sign = np.sign(difference)
        shared[at] += 1
        total[at] += difference
        squares[at] += difference**2
        halves[at] += NORMAL * np.sqrt(variance)
        smallest[at] = np.minimum(smallest[at], sign)
        largest[at] = np.maximum(largest[at], sign)
        agree = np.sign(one - other) == sign
        p_value[at] = np.maximum(p_value[at], np.where(agree, mcnemar(one, other, least), 1.0))
    return _Pairs(shared, total, squares, halves, smallest, largest, p_value)


def _place(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Where ``np.triu_indices(count, 1)`` has the pairs (first, second)."""
    place: np.ndarray = first * (2 * count - first - 1) // 2 + second - first - 1
    return place


def _one_seed(
    bits: np.ndarray, labels: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For pairs of one seed's runs: images that only the first gets right, and only the second; class-balanced
    difference, and its variance as in :func:`paired_interval`.

    Classes with equally many images are taken together; all but the last divisions are of whole numbers, so runs that
    do not differ have difference and variance 0.
    """
    one, other, difference, variance = (np.zeros(len(first)) for _ in range(4))
    pair = first * len(bits) + second
    counts = np.bincount(labels)
    for images in np.unique(counts[counts > 0]):
        own = bits[:, counts[labels] == images]
        right = own.reshape(len(own), -1, images).sum(axis=2, dtype=np.float64)
        # Images that nobody gets right are many on a robust board; sums of float32 are exact up to 2 ** 24.
        some = own[:, own.any(axis=0)].astype(np.float32)
        common, products = (some @ some.T).take(pair).astype(np.float64), right @ right.T
        total, squares = right.sum(axis=1), products.diagonal()
        here, there = total[first] - common, total[second] - common
        class_squares = squares[first] + squares[second] - 2 * products.take(pair)
        one += here
        other += there
        difference += (here - there) / images
        variance += (here + there - class_squares / images) / images**2
    classes = np.count_nonzero(counts)
    return one, other, difference / classes, variance / classes**2


def _differences(first: str, second: str, pairs: list[tuple[Record, Record]], attack: str) -> list[Difference]:
    run = pairs[0][0].run
    labels = pairs[0][0].labels()
    groups = {"all": np.arange(len(run.train_counts)), **rank_groups(run.train_counts)}
    bits = [(a.bits(attack), b.bits(attack)) for a, b in pairs]
    made = []
    for group, members in groups.items():
        inside = np.isin(labels, members)
        own = labels[inside]
        differences, p_values = [], []
        for a, b in bits:
            left, right = a[inside], b[inside]
            differences.append(np.mean([left[own == c].mean() - right[own == c].mean() for c in np.unique(own)]))
            only = int((left & ~right).sum()), int((right & ~left).sum())
            # Images count alike in the test, classes in the difference: if the two point apart, nothing is shown.
            p_values.append(float(mcnemar(*only)) if np.sign(only[0] - only[1]) == np.sign(differences[-1]) else 1.0)
        within = np.array([paired_interval(a[inside], b[inside], own) for a, b in bits])
        low, high = within.mean(axis=0)
        if len(pairs) > 1:
            # Seeds differ in training, all see the same images: neither spread replaces the other.
            by_seed = t_interval(differences)
            low, high = min(low, by_seed[0]), max(high, by_seed[1])
        # Opposite signs in two seed pairs are no evidence of a difference, however small each p-value.
        agree = len({np.sign(d) for d in differences}) == 1
        p_value = max(p_values) if agree else 1.0
        seeds = tuple(a.run.seed for a, _ in pairs)
        mean = float(np.mean(differences))
        made.append(Difference(group, first, second, mean, (float(low), float(high)), p_value, p_value, seeds))
    return made
