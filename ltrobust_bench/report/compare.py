"""Whether methods differ: the paired test of :mod:`ltrobust_bench.scores.paired` on runs of one board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltrobust_bench.errors import UsageError
from ltrobust_bench.records.schema import Record
from ltrobust_bench.report.board import Board
from ltrobust_bench.scores.groups import rank_groups
from ltrobust_bench.scores.intervals import effective_images
from ltrobust_bench.scores.paired import LEVEL, Paired, better, equivalence, holm, paired, resolution


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
        p_equal: of the claim that the two differ by less than the margin (two one-sided tests), after Holm's correction
            over the compared methods.
        margin: that was stated, a fraction.
    """

    group: str
    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_holm: float
    seeds: tuple[int, ...]
    p_equal: float = 1.0
    margin: float = 0.0

    @property
    def equivalent(self) -> bool:
        """Whether the data tell that the two differ by less than the margin."""
        return self.p_equal < LEVEL

    @property
    def verdict(self) -> str:
        """In words. A difference can be resolved and still be smaller than the margin."""
        near = f"equivalent within {100 * self.margin:g}" if self.equivalent else ""
        told = ("better" if self.difference > 0 else "worse") if self.resolved else ""
        return ", ".join(part for part in (told, near) if part) or "not resolved"

    @property
    def resolved(self) -> bool:
        """Whether the data tell the two apart: significant after correction, and the interval leaves out 0."""
        low, high = self.interval
        return self.p_holm < LEVEL and (low > 0 or high < 0)


def compare(
    entries: Sequence[tuple[str, Sequence[Record]]], attack: str = "union", margin: float = 0.01
) -> list[Difference]:
    """Every later entry against the first, group by group; Holm's correction goes over the later entries.

    Args:
        entries: name and runs of each method, all on one board.
        attack: ``clean``, an attack, or ``union``.
        margin: of equivalence, a fraction.

    Raises:
        UsageError: with fewer than two entries, or no seed in common.
    """
    if len(entries) < 2:
        raise UsageError("a comparison needs two methods.")
    names, runs = zip(*entries, strict=True)
    seeds = [sorted({r.run.seed for r in runs[0]} & {r.run.seed for r in others}) for others in runs[1:]]
    for name, shared in zip(names[1:], seeds, strict=True):
        if not shared:
            raise UsageError(f"{names[0]} and {name} have no seed in common; run one of them with the other's seeds.")
    bits, methods, labels = _by_seed(runs, attack)
    second = np.arange(1, len(runs))
    by_group = []
    for group, inside in _groups(runs[0][0]).items():
        found = paired([rows[:, inside] for rows in bits], methods, labels[inside], np.zeros_like(second), second)
        tested = effective_images(np.unique(labels[inside], return_counts=True)[1])
        equal = holm(equivalence(found, margin, tested))
        numbers = (found.difference, found.half, found.p_value, holm(found.p_value), equal)
        by_group.append([(group, *map(float, own)) for own in zip(*numbers, strict=True)])
    return [
        Difference(group, names[0], name, mean, (mean - half, mean + half), p, p_holm, tuple(shared), p_equal, margin)
        for name, shared, own in zip(names[1:], seeds, zip(*by_group, strict=True), strict=True)
        for group, mean, half, p, p_holm, p_equal in own
    ]


def every_pair(entries: Sequence[Sequence[Record]]) -> dict[str, Paired]:
    """Every entry of a board against every later one in the worst case, group by group, before any correction: what
    :func:`compare` says of two of them, and of more after Holm's correction over those that are compared.

    Args:
        entries: the runs of each entry, all on one board.

    Returns:
        For each group, pairs in the order of ``itertools.combinations``: fields of shape [E * (E - 1) / 2].
    """
    bits, methods, labels = _by_seed(entries, "union")
    first, second = np.triu_indices(len(entries), 1)
    return {
        group: paired([rows[:, inside] for rows in bits], methods, labels[inside], first, second)
        for group, inside in _groups(entries[0][0]).items()
    }


def _groups(record: Record) -> dict[str, np.ndarray]:
    """Which test images belong to each group of classes, bool, shape [T]."""
    counts, labels = record.run.train_counts, record.labels()
    members = {"all": np.arange(len(counts)), **rank_groups(counts)}
    return {group: np.isin(labels, own) for group, own in members.items()}


def resolved_pairs(entries: Sequence[Sequence[Record]]) -> np.ndarray:
    """Which entries of a board are resolved better than which: [i, j] is true if the data tell that i beats j.

    The test of :func:`compare` in the worst case, over all classes; Holm's correction for a pair goes over all
    comparisons of ``j``.

    Args:
        entries: the runs of each entry, all on one board.

    Returns:
        bool, shape [E, E].
    """
    return better(*_by_seed(entries, "union"), len(entries))


def resolutions(board: Board) -> dict[str, float]:
    """The smallest difference that a board's test images and seeds can resolve, for all classes and each group: see
    :func:`~ltrobust_bench.scores.paired.resolution`. Of entries that follow one another on the board: those further
    apart differ on more images, and their seeds otherwise.

    Returns:
        Fractions by group; empty with fewer than two entries, or where neighbours share no seed.
    """
    if len(board.entries) < 2:
        return {}
    bits, methods, labels = _by_seed([entry.runs for entry in board.entries], "union")
    found = {
        group: resolution([rows[:, inside] for rows in bits], methods, labels[inside], len(board.entries))
        for group, inside in _groups(board.entries[0].runs[0]).items()
    }
    return {group: value for group, value in found.items() if value == value}


def resolution_in_words(board: Board) -> str:
    """One line; empty where nothing can be said."""
    found = resolutions(board)
    if "all" not in found:
        return ""
    groups = ", ".join(f"{group} {100 * value:.1f}" for group, value in found.items() if group != "all")
    seeds = sorted({len(entry.runs) for entry in board.entries})
    spread = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"Resolution: {sum(board.key.test_counts)} test images and {spread} seed{'s' * (seeds != [1])} resolve "
        f"differences of about {100 * found['all']:.1f} points of worst-case accuracy"
        f"{f' ({groups})' if groups else ''}; smaller ones are not told from noise (median 95 % half-width between "
        "neighbours; one comparison)."
    )


def _by_seed(entries: Sequence[Sequence[Record]], attack: str) -> tuple[list[np.ndarray], list[list[int]], np.ndarray]:
    """For each seed the bits of its runs, and which entries they belong to; and the images' labels."""
    by_seed: dict[int, dict[int, Record]] = {}
    for number, runs in enumerate(entries):
        for record in runs:
            by_seed.setdefault(record.run.seed, {})[number] = record
    bits = [np.stack([record.bits(attack) for record in runs.values()]) for runs in by_seed.values()]
    return bits, [list(runs) for runs in by_seed.values()], entries[0][0].labels()
