"""Entries of a board as papers name and cite them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ltrobust_bench.cards import Card, Paper, card_of, methods, plugins
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.report.board import Entry


def cards_of(run: RunSection) -> list[Card]:
    """The installed cards of a run's method and plug-ins."""
    return [card_of(slug) for slug in (run.method, *run.plugins) if slug in methods or slug in plugins]


def title_of(run: RunSection) -> str:
    """Method and plug-ins as papers write them; as a board does where a card is missing."""
    cards = cards_of(run)
    whole = len(cards) == 1 + len(run.plugins)
    return " + ".join(card.title for card in cards) if whole else run.combination


def paper_name(entry: Entry) -> str:
    """An entry as papers call it: the titles of its cards, and the settings that the board names."""
    run = entry.runs[0].run
    return title_of(run) + entry.label.removeprefix(run.combination)


def references(cards: Iterable[Card]) -> dict[str, Paper]:
    """The papers of some cards by citation key, in order; without those whose citation has no key."""
    found: dict[str, Paper] = {}
    for card in cards:
        if key := re.match(r"\s*@\w+\s*\{\s*([^\s,]+)", card.paper.bibtex):
            found.setdefault(key[1], card.paper)
    return found
