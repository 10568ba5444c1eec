"""Verdicts: what our records say of what a paper claims.

A claim is a sum of accuracies with weights, image by image and seed by seed, so that whatever is common to the networks
that are compared drops out. A case is *confirmed* if the sum is resolved above 0 (the paired test of
:mod:`ltrobust_bench.scores.paired`, Holm's correction over the claim's cases, in each group of classes by itself, and a
95 % interval that leaves out 0), *refuted* if it is resolved below. Of a claim that something changes nothing, a case
is confirmed if the whole interval lies within the margin, and refuted if the sum is resolved beyond it. Where a claim
supposes a gain, a case is judged only if that is resolved above 0, too: its p-value is the larger of both. With fewer
than three seeds nothing is resolved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ltrobust_bench.records.schema import Record
from ltrobust_bench.report.aggregate import on_terms
from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.report.claims.stated import EVERY_ENTRY, PLACEHOLDERS, Case, Claim, Group
from ltrobust_bench.scores.groups import rank_groups
from ltrobust_bench.scores.paired import LEVEL, contrast, holm

Verdict = Literal["confirmed", "refuted", "not resolved at this scale", "not measured yet"]
SEEDS = 3
"""Fewer seeds say something about runs, not about methods."""


@dataclass(frozen=True)
class Comparison:
    """One case of a claim, on one group of classes.

    Attributes:
        case: entries in place of X and Y; empty if the claim has no cases.
        group: ``all``, ``head``, ``medium`` or ``tail``.
        missing: entries that the board does not have; then there are no numbers.
        figure: the sum of the terms, mean over seeds, points.
        half: half the width of its 95 % interval, points.
        p_value: after Holm's correction over the claim's cases.
        seeds: seeds that all its entries share.
        given: the same of the gain that the claim supposes; None: it supposes none.
    """

    case: tuple[str, ...]
    group: Group
    missing: tuple[str, ...] = ()
    figure: float = np.nan
    half: float = np.nan
    p_value: float = 1.0
    seeds: tuple[int, ...] = ()
    verdict: Verdict = "not measured yet"
    given: Comparison | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, points."""
        return self.figure - self.half, self.figure + self.half


@dataclass(frozen=True)
class Finding:
    """A claim and what became of it.

    Attributes:
        comparisons: by group, then as the claim names its cases.
        verdicts: of each group.
        used: the runs behind it, by entry.
    """

    claim: Claim
    comparisons: tuple[Comparison, ...]
    verdicts: Mapping[Group, Verdict]
    used: Mapping[str, tuple[Record, ...]]


def finding_of(claim: Claim, board: Board | None) -> Finding:
    """What a board says of a claim; None: there is no such board yet."""
    entries = {entry.label: entry for entry in board.entries} if board else {}
    cases = _cases(claim, entries)
    comparisons, verdicts = [], {}
    for group in claim.groups:
        found = _judged(claim, [_compare(claim, case, group, board, entries) for case in cases])
        comparisons += found
        verdicts[group] = together([one.verdict for one in found], claim.holds)
    named = [*claim.entries(), *(entry for case in cases for entry in case)]
    used = {name: tuple(entries[name].runs) for name in dict.fromkeys(named) if name in entries}
    return Finding(claim, tuple(comparisons), verdicts, used)


def _cases(claim: Claim, entries: Mapping[str, Entry]) -> list[Case]:
    """The claim's cases; ``*`` is every entry that competes and that its terms do not name."""
    if claim.cases == [[EVERY_ENTRY]]:
        competing = [label for label, entry in entries.items() if on_terms(entry)]
        return [[label] for label in competing if label not in claim.entries()]
    return claim.cases or [[]]


def _compare(claim: Claim, case: Case, group: Group, board: Board | None, entries: Mapping[str, Entry]) -> Comparison:
    """A case without its verdict."""
    stands_for = dict(zip(PLACEHOLDERS, case, strict=False))
    terms, given = (
        [(weight, under, stands_for.get(entry, entry)) for weight, under, entry in stated]
        for stated in (claim.terms, claim.given.terms if claim.given else [])
    )
    named = dict.fromkeys(label for _, _, label in [*terms, *given])
    missing = tuple(label for label in named if label not in entries)
    empty = Comparison(tuple(case), group, missing)
    if missing or board is None:
        return empty
    runs = {label: {run.run.seed: run for run in entries[label].runs} for label in named}
    seeds = tuple(sorted(set.intersection(*(set(own) for own in runs.values()))))
    if not seeds:
        return empty
    first = entries[next(iter(named))].runs[0]
    labels = first.labels()
    inside = np.isin(labels, _members(first.run.train_counts, group))

    def measured(summed: Sequence[tuple[float, str, str]], constant: float = 0.0) -> Comparison:
        sums = [
            constant
            + np.sum([weight * runs[label][seed].bits(under)[inside] for weight, under, label in summed], axis=0)
            for seed in seeds
        ]
        found = contrast(sums, labels[inside])
        figure, half = 100 * float(found.difference[0]), 100 * float(found.half[0])
        return replace(empty, figure=figure, half=half, p_value=float(found.p_value[0]), seeds=seeds)

    one = measured(terms, claim.constant)
    if not given:
        return one
    gain = measured(given)
    return replace(one, p_value=max(one.p_value, gain.p_value), given=gain)


def _members(train_counts: Sequence[int], group: Group) -> np.ndarray:
    return np.arange(len(train_counts)) if group == "all" else rank_groups(train_counts)[group]


def _judged(claim: Claim, found: list[Comparison]) -> list[Comparison]:
    """Cases of one group with corrected p-values and verdicts."""
    measured = [number for number, one in enumerate(found) if one.seeds]
    corrected = holm([found[number].p_value for number in measured])
    for number, p_value in zip(measured, corrected, strict=True):
        one = replace(found[number], p_value=float(p_value))
        found[number] = replace(one, verdict=verdict_of(one, claim))
    return found


def verdict_of(one: Comparison, claim: Claim) -> Verdict:
    """The verdict on a case that has numbers."""
    low, high = one.interval
    if one.given is not None and one.given.interval[0] <= 0:
        return "not resolved at this scale"
    resolved = len(one.seeds) >= SEEDS and one.p_value < LEVEL
    if claim.direction == "within":
        if len(one.seeds) >= SEEDS and max(-low, high) < claim.margin:
            return "confirmed"
        return "refuted" if resolved and max(low, -high) > claim.margin else "not resolved at this scale"
    if resolved and low > 0:
        return "confirmed"
    return "refuted" if resolved and high < 0 else "not resolved at this scale"


def together(verdicts: Sequence[Verdict], holds: Literal["every", "some"]) -> Verdict:
    """The verdict on a claim about several cases: *every* one must show it, or *some* one. What is not measured yet can
    still decide either."""
    sign, other = ("refuted", "confirmed") if holds == "every" else ("confirmed", "refuted")
    if not verdicts or set(verdicts) == {"not measured yet"}:
        return "not measured yet"
    if sign in verdicts:
        return sign  # type: ignore[return-value]
    return other if set(verdicts) == {other} else "not resolved at this scale"  # type: ignore[return-value]
