"""Published numbers as blocks for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import get_args

from ltrobust_bench.cards import Evidence
from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.report.board import Board
from ltrobust_bench.report.published import COLUMNS, METRIC, Ours, PublishedNumber
from ltrobust_bench.report.tables import csv_lines, plain_cell


@dataclass(frozen=True)
class Block:
    """Numbers of one kind from one place of one paper, for one data set, ratio and network."""

    setting: str
    kind: Evidence
    paper: str
    where: str
    lines: list[tuple[PublishedNumber, Ours | None]]

    @property
    def sources(self) -> list[str]:
        """Links, each once."""
        return list(dict.fromkeys(number.source for number, _ in self.lines))

    @property
    def notes(self) -> list[str]:
        """What the lines' notes say, each once."""
        return list(dict.fromkeys(part for number, _ in self.lines for part in number.note.split("; ") if part))

    def rows(self) -> list[list[str]]:
        """The paper's name, ours, metric, the published value and ours, as text."""
        return [
            [n.name, n.as_ours, n.metric, n.with_deviation, "-" if ours is None else _short(n, ours)]
            for n, ours in self.lines
        ]


HEADER = ["in the paper", "method", "metric", "published", "ours"]


def blocks(numbers: Sequence[PublishedNumber], ours: Sequence[Ours | None]) -> list[Block]:
    """Numbers by setting, then kind, paper and place; inside, in the order of the file."""
    kinds = get_args(Evidence)

    def place(line: tuple[PublishedNumber, Ours | None]) -> tuple[object, ...]:
        n = line[0]
        setting = (n.dataset, n.imbalance_ratio or 0, n.model or "")
        return (*setting, kinds.index(n.kind), n.paper, n.where)

    ordered = sorted(zip(numbers, ours, strict=True), key=place)
    found = []
    for _, members in groupby(ordered, key=place):
        lines = list(members)
        n = lines[0][0]
        found.append(Block(n.setting, n.kind, n.paper, n.where, lines))
    return found


ATTACK_WORDS = {
    "clean": "clean",
    "fgsm": "FGSM",
    "mim20": "MIM-20",
    "pgd": "PGD, steps not stated",
    "pgd20": "PGD-20",
    "pgd100": "PGD-100",
    "cw20": "CW-20",
    "lsa": "LSA",
    "aa": "AutoAttack",
    "robust_unspecified": "robust, attack not stated",
}
"""Papers' attacks as people write them."""


def metric_in_words(metric: str) -> str:
    """A metric of a file, ``tail_pgd20``, as people read it: PGD-20, tail."""
    parts = METRIC.fullmatch(metric)
    assert parts is not None
    words = [ATTACK_WORDS[parts["attack"]]]
    words += ["tail"] * bool(parts["tail"]) + ["mean over classes"] * bool(parts["balanced"])
    words += [f"class {parts['label']}"] * bool(parts["label"])
    if parts["gain"]:
        words.append(parts["gain"].removeprefix("_").replace("_", " "))
    return ", ".join(words)


def _short(number: PublishedNumber, ours: Ours) -> str:
    model = ours.board.key.model
    return f"{ours.value:.1f}" if model == number.model else f"{ours.value:.1f} ({model})"


LEGEND = (
    "Per cent; a gain is a difference in points. printed: by the paper's authors; digitized: measured in "
    "their figure; second-hand: copied by somebody else. Never ranked: papers differ in split, network, budget, "
    "attack, checkpoint and in what tail means. ours: mean over seeds of the same method, data set and imbalance "
    "ratio, with its network where that is another; -: none."
)


def about_ours(found: Sequence[Block]) -> list[str]:
    """What each of our boards that stands beside papers is, and how its runs differ from theirs, a line each."""
    boards = {own.board.slug: own.board for block in found for _, own in block.lines if own is not None}
    return [f"ours: {board.title}; {_terms(board)}" for board in boards.values()]


def _terms(board: Board) -> str:
    """A board's terms in the words in which papers state theirs."""
    key = board.key
    images = f"{sum(key.test_counts):,} test images"
    if board.status == "unknown":
        return images
    protocol = protocol_for(key.dataset, key.protocol)
    attack, given = protocol.training.attack, protocol.test_images(key.dataset)
    images += f", the first {given} of each class" if given else ", balanced"
    training = f"{protocol.training.epochs} epochs, {attack.steps} steps of {attack.step_size} in training"
    if key.track == "paper":
        training = "each method trained by its authors' recipe"
    return (
        f"{training}, the last checkpoint, {images}, AutoAttack by its authors' code. Papers have their own networks, "
        "budgets, attacks and rules for the checkpoint (ltbench show METHOD), so equal numbers confirm nothing and "
        "different ones refute nothing: no paper is reproduced here"
    )


def markdown(found: Sequence[Block]) -> str:
    """Blocks as Markdown tables, each under its setting, kind and source."""
    parts = ["# Published numbers\n"]
    for setting, members in groupby(found, key=lambda block: block.setting):
        parts.append(f"## {setting}\n")
        for block in members:
            links = ", ".join(f"<{link}>" for link in block.sources)
            parts.append(f"{_escaped(f'{block.kind}: {block.paper}, {block.where}')}, {links}\n")
            lines = [HEADER, ["---", "---", "---", "---:", "---:"], *block.rows()]
            parts.append("".join("| " + " | ".join(_escaped(cell) for cell in line) + " |\n" for line in lines))
            if block.notes:
                parts.append("".join(f"- {_escaped(note)}\n" for note in block.notes))
    return "\n".join([*parts, LEGEND + "\n", *(f"{_escaped(line)}.\n" for line in about_ours(found))])


def to_csv(numbers: Sequence[PublishedNumber], ours: Sequence[Ours | None]) -> str:
    """One line per number: paper, the columns of its file, ours in per cent, and the board that has it."""
    lines = [["paper", *COLUMNS, "ours", "board"]]
    for number, own in zip(numbers, ours, strict=True):
        ratio = number.imbalance_ratio
        cells = number.model_dump() | {"imbalance_ratio": None if ratio is None else f"{ratio:g}"}
        own_cells = ["", ""] if own is None else [f"{own.value:.2f}", own.board.slug]
        lines.append([number.paper, *(plain_cell(cells[column]) for column in COLUMNS), *own_cells])
    return csv_lines(lines)


def _escaped(text: str) -> str:
    return re.sub(r"([\\|*_<>\[\]`])", r"\\\1", text)
