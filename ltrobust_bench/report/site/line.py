"""An entry where it stands on its board, as pages show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ltrobust_bench.cards import Card, Paper, methods, plugins
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.report.aggregate import Board, Entry
from ltrobust_bench.report.cited import cards_of, paper_name, references, title_of
from ltrobust_bench.report.columns import cells_of
from ltrobust_bench.report.reproduce import command, obstacles
from ltrobust_bench.report.site.chart import Chart, per_class

NO_CARD = "no card installed"


@dataclass(frozen=True)
class Line:
    """An entry where it stands on its board; ``cells`` are its values by column, not rounded yet."""

    board: Board
    entry: Entry
    cells: dict[str, Any]

    @property
    def run(self) -> RunSection:
        return self.entry.runs[0].run

    @property
    def name(self) -> str:
        """Method and plug-ins."""
        return self.run.combination

    @property
    def settings(self) -> str:
        """What the label says beside the name."""
        return self.entry.label.removeprefix(self.name).strip()

    @property
    def cards(self) -> list[Card]:
        return cards_of(self.run)

    @property
    def title(self) -> str:
        """Method and plug-ins as papers write them."""
        return title_of(self.run)

    @property
    def called(self) -> str:
        """Title and settings, on one line."""
        return paper_name(self.entry)

    @property
    def beside(self) -> str:
        """What stands below the title: the label where it says more, and where the paper appeared."""
        label = self.settings if self.name.lower() == self.title.lower() else self.entry.label
        return " · ".join(part for part in (label, self.source) if part)

    @property
    def source(self) -> str:
        """Venue and year of the method's paper; empty without a card."""
        return venue(self.cards[0]) if self.cards else ""

    @property
    def words(self) -> str:
        """What a search finds it by, besides what its line shows."""
        papers = (card.paper for card in self.cards)
        said = (f"{p.title} {p.authors} {p.venue} {p.year} {p.arxiv or ''}" for p in papers)
        return " ".join([self.title, self.entry.label, self.group, *said])

    @property
    def anchor(self) -> str:
        """Its place on the method's page."""
        return self.entry.runs[0].id

    @property
    def href(self) -> str:
        """The method's page, at the top for the method as it is, else where this form of it is."""
        page = f"methods/{self.run.method}.html"
        return page if self.entry.label == self.run.method else f"{page}#{self.anchor}"

    @property
    def group(self) -> str:
        """Kind of defense."""
        return methods.get(self.run.method).card.group if self.run.method in methods else NO_CARD

    @property
    def command(self) -> str:
        return command(self.entry.runs)

    @property
    def obstacles(self) -> list[str]:
        return obstacles(self.run)

    @property
    def chart(self) -> Chart:
        clean = self.entry.percent("clean", "per_class")
        return per_class(self.board.key.train_counts, clean, self.entry.per_seed("union", "per_class"))


def lines(board: Board) -> list[Line]:
    """The entries of a board by rank; those without one stand apart, last."""
    found = [Line(board, *line) for line in zip(board.entries, cells_of(board), strict=True)]
    return sorted(found, key=lambda line: line.entry.rank is None)


def venue(card: Card) -> str:
    """Where a card's paper appeared, as papers write it."""
    return f"{card.paper.venue} {card.paper.year}"


def titles(method: str | None) -> str:
    """A method and its plug-ins, ``at+awp``, as papers write them; a name without a card as it is."""
    names = (method or "").split("+")
    known = [methods if name in methods else plugins if name in plugins else None for name in names]
    return " + ".join(
        registry.get(name).card.title if registry else name for registry, name in zip(known, names, strict=True)
    )


def papers() -> dict[str, Paper]:
    """The papers of all installed methods and plug-ins by citation key."""
    return references(entry.load().card for registry in (methods, plugins) for entry in registry)


def short(paper: Paper) -> str:
    """A paper as a text names it: Wu et al., CVPR 2021."""
    first, *others = paper.authors.split(",")
    return f"{first}{' et al.' if others else ''}, {paper.venue} {paper.year}"


def repositories(text: str | None) -> Iterable[tuple[str, str]]:
    """Name and link of each repository in a value of the column ``code``; a card may only name pages of the web."""
    for place in (text or "").split():
        url = place if "://" in place else f"https://github.com/{place}"
        if is_web(url):
            yield place.rsplit("/", 1)[-1], url


def is_web(url: str) -> bool:
    """Whether a link may lead there."""
    return url.startswith(("https://", "http://"))
