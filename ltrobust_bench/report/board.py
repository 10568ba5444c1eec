"""What a leaderboard is made of: the terms that runs share, entries, boards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

import numpy as np

from ltrobust_bench.attacks.autoattack import NAMES
from ltrobust_bench.attacks.ball import ThreatModel
from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.plan.run import RunSection, ratio_text
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.protocol.spec import Status
from ltrobust_bench.records.schema import Level, Record
from ltrobust_bench.scores.groups import by_size
from ltrobust_bench.scores.intervals import Spread
from ltrobust_bench.scores.metrics import Metrics

ProtocolStatus = Literal[Status, "unknown"]
IntervalKind = Literal["wilson", "t over seeds"]
ALWAYS = ("at", "trades")
"""Entries that every paper compares with: named on each figure of their board."""
METRICS = tuple(f.name for f in fields(Metrics) if f.name != "per_class")


class BoardKey(NamedTuple):
    """Runs are compared only if all of this agrees: the terms, the images and the attacks."""

    protocol: str
    protocol_digest: str
    dataset: str
    imbalance_ratio: float
    profile: str
    model: str
    track: str
    threat_model: ThreatModel
    epsilon: float
    suite: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    train_index_sha256: str
    test_index_sha256: str
    source_sha256: str | None
    cuts: tuple[tuple[str, int | str], ...]

    @classmethod
    def of(cls, record: Record) -> BoardKey:
        return cls.of_run(record.run, record.attacks)

    @classmethod
    def of_run(cls, run: RunSection, attacks: Sequence[str]) -> BoardKey:
        return cls(
            run.protocol,
            run.protocol_digest,
            run.dataset,
            run.imbalance_ratio,
            run.profile,
            run.model,
            run.track,
            run.threat_model,
            run.epsilon,
            tuple(sorted(attacks)),
            tuple(run.train_counts),
            tuple(run.test_counts),
            run.train_index_sha256,
            run.test_index_sha256,
            run.source_sha256,
            tuple(run.cuts.items()),
        )

    @property
    def reduced(self) -> bool:
        return bool(self.cuts)

    @property
    def ratio(self) -> str:
        """The imbalance ratio for titles, see :func:`~ltrobust_bench.plan.run.ratio_text`."""
        return ratio_text(self.imbalance_ratio, self.profile, self.train_counts, dict(self.cuts))


@dataclass(frozen=True, repr=False)
class Entry:
    """One line of a board: a method with its plug-ins, options and overrides; runs differ in the seed only.

    Attributes:
        label: name on the board, unique there.
        runs: one record per seed, by seed.
        metrics: fractions, fields of shape [seeds, rows] (``per_class`` [seeds, rows, C]).
        rows: what the rows of ``metrics`` are: 'clean', the attacks, 'union'.
        spread: ``METRICS`` over seeds, fractions, shape [rows, len(METRICS)].
        interval_kind: how its intervals were made.
        level: how far it is verified, the lowest of its runs; None where nothing is public.
        flags: what a reader must know before comparing.
        rank: 1 is best; entries whose difference is not resolved share a rank; None if the board or the entry is
            not ranked.
    """

    label: str
    runs: list[Record]
    metrics: Metrics
    rows: tuple[str, ...]
    spread: Spread
    interval_kind: IntervalKind
    flags: list[str]
    level: Level | None = None
    rank: int | None = None

    def __repr__(self) -> str:
        rank = "" if self.rank is None else f", rank {self.rank}"
        return (
            f"<Entry {self.label}: worst case {self.percent('union', 'balanced'):.1f} %, {len(self.runs)} seeds{rank}>"
        )

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the balanced worst-case accuracy, fractions."""
        at = self.rows.index("union"), METRICS.index("balanced")
        return float(self.spread.low[at]), float(self.spread.high[at])

    def percent(self, attack: str, name: str) -> np.ndarray:
        """Mean over seeds of the metric ``name`` under ``attack``, per cent; ``per_class`` has shape [C]."""
        if name == "per_class":
            return self.per_seed(attack, name).mean(axis=0)
        return 100 * self.spread.mean[self.rows.index(attack), METRICS.index(name)]

    def std(self, attack: str, name: str) -> float:
        """Standard deviation over seeds of a metric of ``METRICS``, per cent; NaN with one seed."""
        return 100 * float(self.spread.std[self.rows.index(attack), METRICS.index(name)])

    def bars(self, attack: str, name: str) -> tuple[float, float]:
        """How far error bars reach below and above :meth:`percent`: the standard deviation over seeds, or with one seed
        to the ends of the 95 % interval that its test images give; NaN where there is none."""
        at = self.rows.index(attack), METRICS.index(name)
        if len(self.runs) > 1:
            return self.std(attack, name), self.std(attack, name)
        mean, low, high = (100 * float(ends[at]) for ends in (self.spread.mean, self.spread.low, self.spread.high))
        return mean - low, high - mean

    def per_seed(self, attack: str, name: str) -> np.ndarray:
        """The metric ``name`` of each seed, per cent, shape [S] or [S, C]."""
        return 100 * getattr(self.metrics, name)[:, self.rows.index(attack)]


@dataclass(frozen=True, repr=False)
class Board:
    """Entries that may be compared, best first; of a smoke test by name, and without ranks.

    Attributes:
        status: the protocol's, or 'unknown' if no installed protocol has the digest.
        messages: what was left out or looks odd, for the person who builds the board.
        slug: unique among the boards built together; a folder name.
        reference: the balanced reference of a long-tailed board: plain AT on as many images in equal classes,
            everything else alike; None if it was not run, or is not beyond doubt.
        chosen_from: the whole board, where somebody named the entries to be shown; None: this is the whole.
    """

    key: BoardKey
    status: ProtocolStatus
    entries: list[Entry]
    slug: str
    messages: list[str]
    reference: Entry | None = None
    chosen_from: Board | None = None

    def only(self, entries: list[Entry]) -> Board:
        """The board with some of its entries, in their order; each keeps what it looks like in figures."""
        return replace(self, entries=entries, chosen_from=self.chosen_from or self)

    def __repr__(self) -> str:
        return f"<Board {self.title}: {len(self.entries)} entries>"

    @property
    def title(self) -> str:
        """One line: data, network, terms, and any reason not to take the numbers at face value."""
        k = self.key
        ratio = f"imbalance ratio {k.ratio}" + ("" if k.profile == "exp" else f" ({k.profile})")
        text = f"{k.dataset}, {ratio}, {k.model}: protocol {k.protocol}, track {k.track}"
        return f"{text} [{'; '.join(self.warnings)}]" if self.warnings else text

    @property
    def warnings(self) -> list[str]:
        """Why the board's numbers are not for papers; empty if they are."""
        texts = warnings_of(self.key, self.status)
        return texts + ([f"incomplete suite, without {', '.join(self.missing)}"] if self.missing else [])

    @property
    def usual(self) -> bool:
        """Whether imbalance ratio, profile and network are those that the protocol names for the data set."""
        if self.status == "unknown":
            return False
        k = self.key
        terms = protocol_for(k.dataset, k.protocol).terms(k.dataset)
        return (k.profile, k.model) == (terms.profile, terms.model) and (
            terms.profile == "own" or k.imbalance_ratio == terms.imbalance_ratio
        )

    @property
    def main(self) -> bool:
        """Whether its protocol is the one that the data set is run under when none is named."""
        return self.status != "unknown" and protocol_for(self.key.dataset).name == self.key.protocol

    @property
    def missing(self) -> list[str]:
        """Attacks of the protocol that the runs were not put through."""
        if self.status == "unknown":
            return []
        classes = len(self.key.test_counts)
        wanted = [attack.named(classes) for attack in load_protocol(self.key.protocol).evaluation.attacks]
        return [name for name in wanted if name not in self.key.suite]

    @property
    def autoattack(self) -> str | None:
        """Name of the AutoAttack ensemble among the attacks, if it is one of them."""
        return next((name for name in NAMES if name in self.key.suite), None)

    @property
    def classes(self) -> np.ndarray:
        """Labels from the largest class to the smallest, shape [C]."""
        return by_size(self.key.train_counts)


def warnings_of(key: BoardKey, status: ProtocolStatus) -> list[str]:
    """Why numbers of runs under these terms are not for papers, whatever they were attacked with."""
    found = {
        "candidate": "candidate protocol, its terms may still change",
        "disposable": "disposable protocol, not for papers",
        "smoke": "smoke test, the numbers mean nothing",
        "unknown": "unknown protocol",
    }
    texts = [found[status]] if status in found else []
    if key.reduced:
        texts.append("reduced runs: " + ", ".join(CUT[name].format(value) for name, value in key.cuts))
    return texts


CUT = {
    "limit_train": "{} training images",
    "limit_test": "{} test images",
    "epochs": "{} epochs",
    "holdout": "tested on held-out training images",
}
"""How a board says what was cut."""
