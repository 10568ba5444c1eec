"""What the templates show of boards and methods. Text only; the templates escape it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from ltrobust_bench.attacks.ball import BALLS
from ltrobust_bench.cards import Card, card_of, methods, plugins
from ltrobust_bench.protocol import Track, load_protocol
from ltrobust_bench.protocol.load import MAIN
from ltrobust_bench.report.aggregate import FLAGS, Board
from ltrobust_bench.report.compare import resolution_in_words
from ltrobust_bench.report.site.headings import Heading, headings
from ltrobust_bench.report.site.heat import Heat, heat_map
from ltrobust_bench.report.site.line import NO_CARD, Line, is_web, lines
from ltrobust_bench.report.site.words import text

TRACKS = get_args(Track)


@dataclass(frozen=True)
class BoardView:
    """A board, its lines, and where each switch of the page stands when it is shown."""

    board: Board
    lines: list[Line]
    switches: dict[str, str]

    @property
    def norm(self) -> str:
        """The threat model as pages write it."""
        return BALLS[self.board.key.threat_model].symbol

    @property
    def heading(self) -> str:
        return "{dataset}, imbalance ratio {imbalance}, network {model}".format(**self.switches)

    @property
    def headings(self) -> list[Heading]:
        """Its columns."""
        return headings(line.cells for line in self.lines)

    @property
    def end(self) -> int:
        """Per cent at which the scale of the intervals ends: the next ten above all of them."""
        return max(10, 10 * math.ceil(max(line.cells["interval_high"] for line in self.lines) / 10))

    @property
    def heat(self) -> Heat:
        return heat_map(self.board, self.lines)

    @property
    def flags(self) -> list[str]:
        """Flags that some entry has, in the order in which they are explained."""
        seen = {flag for line in self.lines for flag in line.entry.flags}
        return [flag for flag in FLAGS if flag in seen]

    @cached_property
    def resolution(self) -> str:
        """How small a difference the board can resolve, in a line."""
        return "" if self.board.status == "smoke" else resolution_in_words(self.board)


SWITCHES = {
    "dataset": "Data set",
    "imbalance": "Imbalance ratio",
    "model": "Network",
    "track": "Track",
    "protocol": "Protocol",
}
"""The switches of the page by their names."""


def board_views(boards: Sequence[Board]) -> list[BoardView]:
    """The boards with their switches, which stand differently for each."""
    stands = [_switches(board) for board in boards]
    shared = Counter(tuple(stand.values()) for stand in stands)
    for board, stand in zip(boards, stands, strict=True):
        if shared[tuple(stand.values())] > 1:
            stand["protocol"] += f", {board.slug}"
    return [BoardView(board, lines(board), stand) for board, stand in zip(boards, stands, strict=True)]


def _switches(board: Board) -> dict[str, str]:
    k = board.key
    # The first warning of a protocol that is not frozen is about its status, which its name implies.
    reasons = board.warnings if board.status == "frozen" else board.warnings[1:]
    return {
        "dataset": k.dataset,
        "imbalance": k.ratio + ("" if k.profile == "exp" else f" ({k.profile})"),
        "model": k.model,
        "track": k.track,
        "protocol": ", ".join([k.protocol, *reasons]),
    }


@dataclass(frozen=True)
class MethodView:
    """A method or plug-in: its card, if one is installed, and its entries."""

    slug: str
    card: Card | None
    lines: list[Line]

    @property
    def group(self) -> str:
        return self.card.group if self.card else NO_CARD

    @property
    def links(self) -> dict[str, str]:
        """Where its paper and code are; a card may only name pages of the web."""
        if self.card is None:
            return {}
        paper = self.card.paper
        arxiv = f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else None
        code = f"https://github.com/{paper.code}" if paper.code and "://" not in paper.code else paper.code
        found = {"arXiv": arxiv, "paper": paper.url, "official code": code}
        return {name: url for name, url in found.items() if url and is_web(url)}

    @property
    def command(self) -> str:
        """A first run of it."""
        wrapped = f"at --plugin {self.slug}" if self.card and self.card.kind == "plugin" else self.slug
        return f"ltbench run --method {wrapped} --dataset digits-lt"

    @property
    def recipe(self) -> list[tuple[str, str, str]]:
        """Settings of the main protocol's recipe and of the authors', where they differ."""
        if self.card is None or self.card.kind == "plugin":
            return []
        ours, theirs = (self.card.stated_recipe(load_protocol(MAIN), track) for track in TRACKS)
        both = [(name, text(ours.get(name)), text(theirs.get(name))) for name in ours | theirs]
        return [(name, fixed, paper) for name, fixed, paper in both if fixed != paper]


def method_views(views: Sequence[BoardView]) -> list[MethodView]:
    """Every installed method and plug-in, and those that only records know."""
    entries: dict[str, list[Line]] = defaultdict(list)
    for line in (line for view in views for line in view.lines):
        for slug in (line.run.method, *line.run.plugins):
            entries[slug].append(line)
    cards = {entry.name: entry.load().card for registry in (methods, plugins) for entry in registry}
    return [MethodView(slug, cards.get(slug), entries[slug]) for slug in sorted(cards.keys() | entries.keys())]


def bibtex(slugs: Iterable[str]) -> str:
    """The citations of methods and plug-ins, each once."""
    cards = [card_of(slug) for slug in sorted(set(slugs)) if slug in methods or slug in plugins]
    return "\n".join(dict.fromkeys(f"{card.paper.bibtex.strip()}\n" for card in cards))
