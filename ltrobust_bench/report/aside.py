"""Runs that have no rank by themselves: what nobody verified, and what may have misled its suite."""

from __future__ import annotations

from ltrobust_bench.records.numbers import flags_of
from ltrobust_bench.records.schema import Record
from ltrobust_bench.scores.reliability import MASKING

CLAIMED = "claimed"
"""Flag of an entry on a public board that nobody has verified."""
MASKED = "not attacked thoroughly"
"""Flag of an entry whose gradients may mislead, and that nobody has attacked thoroughly."""
ASIDE = (f" ({MASKED})", f" ({CLAIMED})")
"""Runs of an entry that have no rank stand beside those that have one: whoever adds a run that nobody verified, or one
whose gradients may mislead, changes no rank."""


def aside(record: Record) -> str:
    """What a run's entry is called besides, if it stands beside the one that has a rank; empty: it does not."""
    if is_claim(record):
        return ASIDE[1]
    return ASIDE[0] if record.standing is not None and record.standing.public and misleading(record) else ""


def is_claim(record: Record) -> bool:
    """Whether a run of a public board was never verified; one that was, and that somebody disputes since, speaks
    against its entry."""
    known = record.standing
    return known is not None and known.public and known.level == "claimed" and not known.confirmed


def misleading(record: Record) -> bool:
    """Whether a record's suite may have been misled, and nobody has tried more."""
    thorough = record.standing is not None and record.standing.thorough
    return not thorough and any(flag.name in MASKING for flag in flags_of(record))
