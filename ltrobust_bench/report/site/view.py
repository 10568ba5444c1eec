"""What the templates show: lines of boards, methods, records. Text only; the templates escape it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np

from ltrobust_bench.attacks.autoattack import BROKEN_BY
from ltrobust_bench.attacks.ball import BALLS
from ltrobust_bench.cards import Card, card_of, methods, plugins
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.protocol import Track, load_protocol
from ltrobust_bench.protocol.load import MAIN
from ltrobust_bench.records.numbers import class_accuracies, flags_of
from ltrobust_bench.records.schema import Record, Said
from ltrobust_bench.report.aggregate import FLAGS, Board, Entry
from ltrobust_bench.report.board import METRICS
from ltrobust_bench.report.columns import cells_of
from ltrobust_bench.report.reproduce import command, obstacles
from ltrobust_bench.report.site.chart import Chart, per_class
from ltrobust_bench.report.site.headings import Heading, headings
from ltrobust_bench.scores.metrics import metrics_from_classes
from ltrobust_bench.scores.reliability import Flag

LEVELS = {
    "claimed": "as submitted; nobody has repeated the run to verify it",
    "re-evaluated": "its weights were attacked again, with the same result up to what random starts change",
    "retrained": "its whole run was done again, with the same result up to what seeds change",
}
"""How far a record has been verified, and what it means."""
TRACKS = get_args(Track)
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
        return "+".join([self.run.method, *self.run.plugins])

    @property
    def settings(self) -> str:
        """What the label says beside the name."""
        return self.entry.label.removeprefix(self.name).strip()

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
    def flags(self) -> list[str]:
        """Flags that some entry has, in the order in which they are explained."""
        seen = {flag for line in self.lines for flag in line.entry.flags}
        return [flag for flag in FLAGS if flag in seen]


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


@dataclass(frozen=True)
class RecordView:
    """One record, where it counts, and the page of the run it builds on."""

    record: Record
    line: Line
    base: str | None

    @property
    def level(self) -> str:
        standing = self.record.standing
        return "claimed" if standing is None else standing.level

    @property
    def disputed(self) -> tuple[str, ...]:
        return () if self.record.standing is None else self.record.standing.disputed

    @property
    def said(self) -> tuple[Said, ...]:
        """Who stated what, and what it is worth."""
        return () if self.record.standing is None else self.record.standing.said

    @property
    def lowered(self) -> int:
        """How many images that its suite left standing somebody broke."""
        broken = None if self.record.standing is None else self.record.standing.broken
        return 0 if broken is None else int(broken.sum())

    @property
    def title(self) -> str:
        return f"{self.line.entry.label}, seed {self.record.run.seed}"

    @property
    def command(self) -> str:
        return command([self.record])

    @property
    def flags(self) -> list[Flag]:
        return flags_of(self.record)

    @cached_property
    def _classes(self) -> np.ndarray:
        """Accuracy per class, fractions, shape [rows, C]; rows: clean, the attacks, union."""
        return class_accuracies([self.record], self.record.attacks)[0]

    @property
    def rows(self) -> list[tuple[str, dict[str, float]]]:
        """Name and percentages of each attack, from 'clean' to 'union'."""
        run = self.record.run
        found = metrics_from_classes(self._classes, run.test_counts, run.train_counts)
        names = ["clean", *self.record.attacks, "union"]
        return [(name, {m: 100 * float(getattr(found, m)[i]) for m in METRICS}) for i, name in enumerate(names)]

    @property
    def broken_by(self) -> dict[str, int]:
        """Images by the attack of AutoAttack that broke them first."""
        by = self.record.broken_by()
        return {} if by is None else {name: int((by == i).sum()) for i, name in enumerate(BROKEN_BY) if i}

    @property
    def chart(self) -> Chart:
        return per_class(self.record.run.train_counts, 100 * self._classes[0], 100 * self._classes[-1:])

    @property
    def sections(self) -> dict[str, dict[str, str]]:
        """Everything else that the record says, by heading."""
        record, run = self.record, self.record.run
        said = {
            "Run": run.model_dump(exclude={"recipe", *DIGESTS}) | {"attacks searched on": record.result.search},
            "Recipe": run.recipe.model_dump(),
            "Cost": record.cost.model_dump(exclude_none=True),
            "Environment": record.environment.model_dump(),
            "Status": record.status.model_dump(),
            "Reliability, as measured": record.reliability.model_dump() if record.reliability else {},
            "Digests (SHA-256)": {
                "run key": run.key(),
                "result": record.result.digest,
                "weights": record.result.weights_sha256,
                **run.model_dump(include=DIGESTS, exclude_none=True),
            },
        }
        return {heading: {name: text(value) for name, value in _flat(values)} for heading, values in said.items()}


DIGESTS = {"protocol_digest", "train_index_sha256", "test_index_sha256", "source_sha256", "base_key"}


def record_views(views: Sequence[BoardView]) -> list[RecordView]:
    """The records that count on some board."""
    placed = [(record, line) for view in views for line in view.lines for record in line.entry.runs]
    pages = {record.run.key(): record.id for record, _ in placed}
    return [RecordView(record, line, pages.get(record.run.base_key or "")) for record, line in placed]


def bibtex(slugs: Iterable[str]) -> str:
    """The citations of methods and plug-ins, each once."""
    cards = [card_of(slug) for slug in sorted(set(slugs)) if slug in methods or slug in plugins]
    return "\n".join(dict.fromkeys(f"{card.paper.bibtex.strip()}\n" for card in cards))


def is_web(url: str) -> bool:
    """Whether a link may lead there."""
    return url.startswith(("https://", "http://"))


def text(value: Any) -> str:
    """A value of a record or card, in words."""
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(text, value))
    return str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
