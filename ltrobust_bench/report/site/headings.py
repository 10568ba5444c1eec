"""Which columns of the one table of columns the web page's boards show, under which headings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ltrobust_bench.report.values import Cells


class Heading(NamedTuple):
    """Columns of the web page that stand together: the common heading, if any, and names by what stands above each."""

    name: str
    note: str
    columns: dict[str, str]


PAGE = [
    Heading("", "", {"Rank": "rank", "Method": "method"}),
    Heading(
        "Robust",
        ": worst case of all attacks (%)",
        {
            "All": "union_balanced",
            "95\u00a0% interval": "interval",
            "Head": "union_head",
            "Medium": "union_medium",
            "Tail": "union_tail",
            "Worst 10\u00a0%": "union_worst_tenth",
            "Gap": "union_head_tail_gap",
        },
    ),
    Heading("", "", {"AutoAttack (%)": "autoattack_balanced"}),
    Heading("", "", {"External (%)": "external"}),
    Heading(
        "Clean",
        " (%)",
        {"All": "clean_balanced", "Head": "clean_head", "Medium": "clean_medium", "Tail": "clean_tail"},
    ),
    Heading("Training", "", {"Seeds": "seeds", "Passes (M)": "passes", "Seconds": "training_seconds"}),
    Heading("", "", {"Extra data": "extra_data"}),
    Heading("", "", {"Verified": "verification"}),
    Heading("Open", "", {"Weights": "weights", "Code": "code", "Licence": "licence"}),
    Heading("", "", {"Flags": "flags"}),
]
"""The columns of the web page's boards."""
FOLDED = frozenset({"union_head_tail_gap", "training_seconds", "weights", "code", "licence"})
"""Columns that scripts hide until a reader asks for them; without scripts all are shown."""
TEXTS = frozenset({"method", "flags", "extra_data", "verification", "weights", "code", "licence"})
"""Columns of words; all others are numbers."""


def headings(cells: Iterable[Cells]) -> list[Heading]:
    """Those that a board's lines have something to say under."""
    said = {name for line in cells for name, value in line.items() if value is not None}
    return [heading for heading in PAGE if said & set(heading.columns.values())]
