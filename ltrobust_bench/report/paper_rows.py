"""Words that the forms of a paper's table share."""

from __future__ import annotations

from ltrobust_bench.report.columns import ATTACK_TITLES, METRIC

GROUPS = {metric.group: name for name, metric in METRIC.items() if metric.group}
"""Groups of classes a table can show, and the metric of each."""
DAGGER = "†"


def attack_title(name: str) -> str:
    """An attack, 'clean' or 'union' as a heading says it."""
    return ATTACK_TITLES.get(name, name if name.startswith("aa-") else name.upper())


def group_title(name: str) -> str:
    """A group of classes as a heading says it."""
    return METRIC[GROUPS[name]].title


def plain(text: str) -> str:
    """``text`` on one line, without what does not print."""
    return "".join(c if c.isprintable() else " " for c in text)
