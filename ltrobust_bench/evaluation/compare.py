"""Whether two methods differ: paired tests image by image, one per seed pair, and Holm's correction over methods.

Each method's run with seed s is compared with the other's run with seed s on the same test images (McNemar's exact
test). A difference counts as resolved only if every seed pair shows it: the p-value of several pairs is their largest
(an intersection-union test), so one lucky seed decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.groups import rank_groups
from ltrobust_bench.evaluation.intervals import t_interval
from ltrobust_bench.records.schema import Record

LEVEL = 0.05


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


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided McNemar test (binomial, p = 1/2) from the images that only one of two models gets right."""
    from scipy.stats import binomtest

    total = first_only + second_only
    return 1.0 if total == 0 else float(binomtest(first_only, total).pvalue)


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
    centre, half = means.mean(), 1.959963984540054 * np.sqrt(variances.sum()) / len(classes)
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
            p_values.append(mcnemar(*only) if np.sign(only[0] - only[1]) == np.sign(differences[-1]) else 1.0)
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
