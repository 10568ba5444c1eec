"""What must hold of one record, as executable rules.

A rule is a function of a :class:`Case` that yields what it finds wrong, and nothing for an honest record. Whatever
protocol, card and data set fix is compared with them; what a rule cannot know are the bits themselves, the seconds and
the names of machines.
"""

from __future__ import annotations

from collections.abc import Callable

from ltrobust_bench.records.rules import done, filed, stated
from ltrobust_bench.records.rules.case import Case, Findings

RULES: dict[str, Callable[[Case], Findings]] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        stated.known_protocol,
        stated.known_dataset,
        stated.known_card,
        stated.options,
        stated.recipe,
        stated.terms,
        stated.split,
        done.base,
        done.budget,
        done.work,
        done.searched,
        done.environment,
        done.reliability,
        filed.place,
        filed.full,
        filed.provenance,
    )
}
"""By name, in the order in which they are applied."""

__all__ = ["RULES", "Case"]
