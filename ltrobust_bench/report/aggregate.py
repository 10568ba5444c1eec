"""From records to boards: what may be compared, which runs are seeds of one entry, who is first."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np

from ltrobust_bench.cards import Value, methods, plugins
from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.evaluation.compare import resolved_pairs
from ltrobust_bench.evaluation.groups import by_size
from ltrobust_bench.evaluation.intervals import t_interval, wilson
from ltrobust_bench.evaluation.metrics import Metrics, class_accuracies, metrics_from_classes
from ltrobust_bench.evaluation.reliability import MEANINGS, flags_of
from ltrobust_bench.numbers import number
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.protocol.spec import canonical_digest, terms_key
from ltrobust_bench.records.schema import AUTOATTACK, Level, Record, RunSection
from ltrobust_bench.records.verify import LEVELS

ProtocolStatus = Literal["frozen", "disposable", "smoke", "unknown"]
IntervalKind = Literal["wilson", "t over seeds"]
DECIMALS = 2
"""Decimals of every percentage."""
TOP, TOP_SEEDS = 3, 5
"""A claim to one of the first ranks needs so many seeds."""
UNRANKED, NEEDS_SEEDS = "unranked", f"needs {TOP_SEEDS} seeds"
"""Flags of an entry whose card asks for no rank, and of one that is among the first with too few seeds."""
CLAIMED = "claimed"
"""Flag of an entry on a public board that nobody has verified."""
FLAGS = {
    CLAIMED: "nobody has attacked its weights again or trained it again: shown, but not ranked",
    "disputed": "somebody looked at it again and found something else; its record's page says what",
    "lowered": "somebody broke images that its suite left standing; they count as broken",
    "off-recipe": "recipe settings were given by hand, so the method is not on the track's terms",
    "reduced": "training images, test images or epochs were cut by hand",
    "1 seed": "a single run: the interval leaves out the spread between seeds",
    "train-eps>eval-eps": "trained with radii above the one it is attacked with",
    "unknown protocol": "no installed protocol has the digest of the one it was run under",
    UNRANKED: "a reference, or not the authors' method: its card asks for no rank",
    NEEDS_SEEDS: f"a claim to ranks 1 to {TOP} needs {TOP_SEEDS} seeds; this entry has fewer",
    **MEANINGS,
}
"""Every flag of an entry and what it means: those of a board, then the signs of an unreliable evaluation."""


class BoardKey(NamedTuple):
    """Runs are compared only if all of this agrees: the terms, the images and the attacks."""

    protocol: str
    protocol_digest: str
    dataset: str
    imbalance_ratio: float
    profile: str
    model: str
    track: str
    epsilon: float
    suite: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    train_index_sha256: str
    test_index_sha256: str
    source_sha256: str | None
    limits: tuple[int | None, int | None, int | None]

    @classmethod
    def of(cls, record: Record) -> BoardKey:
        run = record.run
        return cls(
            run.protocol,
            run.protocol_digest,
            run.dataset,
            run.imbalance_ratio,
            run.profile,
            run.model,
            run.track,
            run.epsilon,
            tuple(sorted(record.attacks)),
            tuple(run.train_counts),
            tuple(run.test_counts),
            run.train_index_sha256,
            run.test_index_sha256,
            run.source_sha256,
            (run.limit_train, run.limit_test, run.epochs),
        )

    @property
    def reduced(self) -> bool:
        return any(limit is not None for limit in self.limits)


@dataclass(frozen=True)
class Entry:
    """One line of a board: a method with its plug-ins, options and overrides; runs differ in the seed only.

    Attributes:
        label: name on the board, unique there.
        runs: one record per seed, by seed.
        metrics: fractions, fields of shape [seeds, rows] (``per_class`` [seeds, rows, C]).
        rows: what the rows of ``metrics`` are: 'clean', the attacks, 'union'.
        interval: 95 % interval of the balanced worst-case accuracy, fractions.
        interval_kind: how it was made.
        level: how far it is verified, the lowest of its runs; None where nothing is public.
        flags: what a reader must know before comparing.
        rank: 1 is best; entries whose difference is not resolved share a rank; None if the board or the entry is
            not ranked.
    """

    label: str
    runs: list[Record]
    metrics: Metrics
    rows: tuple[str, ...]
    interval: tuple[float, float]
    interval_kind: IntervalKind
    flags: list[str]
    level: Level | None = None
    rank: int | None = None

    @cached_property
    def means(self) -> dict[str, np.ndarray]:
        """Mean over seeds of every metric, per cent, shape [rows] (``per_class`` [rows, C])."""
        return {f.name: 100 * getattr(self.metrics, f.name).mean(axis=0) for f in fields(Metrics)}

    def percent(self, attack: str, name: str) -> np.ndarray:
        """Mean over seeds of the metric ``name`` under ``attack``, per cent; ``per_class`` has shape [C]."""
        return self.means[name][self.rows.index(attack)]

    def per_seed(self, attack: str, name: str) -> np.ndarray:
        """The metric ``name`` of each seed, per cent, shape [S] or [S, C]."""
        return 100 * getattr(self.metrics, name)[:, self.rows.index(attack)]


@dataclass(frozen=True)
class Board:
    """Entries that may be compared, best first; of a smoke test by name, and without ranks.

    Attributes:
        status: the protocol's, or 'unknown' if no installed protocol has the digest.
        messages: what was left out or looks odd, for the person who builds the board.
        slug: unique among the boards built together; a folder name.
    """

    key: BoardKey
    status: ProtocolStatus
    entries: list[Entry]
    slug: str
    messages: list[str]

    @property
    def title(self) -> str:
        """One line: data, network, terms, and any reason not to take the numbers at face value."""
        k = self.key
        ratio = f"imbalance ratio {k.imbalance_ratio:g}" + ("" if k.profile == "exp" else f" ({k.profile})")
        text = f"{k.dataset}, {ratio}, {k.model}: protocol {k.protocol}, track {k.track}"
        return f"{text} [{'; '.join(self.warnings)}]" if self.warnings else text

    @property
    def warnings(self) -> list[str]:
        """Why the board's numbers are not for papers; empty if they are."""
        found = {
            "disposable": "disposable protocol, not for papers",
            "smoke": "smoke test, the numbers mean nothing",
            "unknown": "unknown protocol",
        }
        texts = [found[self.status]] if self.status in found else []
        if self.key.reduced:
            names = ("training images", "test images", "epochs")
            cuts = [f"{n} {what}" for n, what in zip(self.key.limits, names, strict=True) if n is not None]
            texts.append("reduced runs: " + ", ".join(cuts))
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
    def missing(self) -> list[str]:
        """Attacks of the protocol that the runs were not put through."""
        if self.status == "unknown":
            return []
        wanted = [a.name for a in load_protocol(self.key.protocol).evaluation.attacks]
        return [a for a in wanted if a not in self.key.suite and not (a in AUTOATTACK and self.autoattack)]

    @property
    def autoattack(self) -> str | None:
        """Name of the AutoAttack ensemble among the attacks, if it is one of them."""
        return next((name for name in AUTOATTACK if name in self.key.suite), None)

    @property
    def classes(self) -> np.ndarray:
        """Labels from the largest class to the smallest, shape [C]."""
        return by_size(self.key.train_counts)


def boards(records: Iterable[Record]) -> list[Board]:
    """The boards of some records: full before reduced, frozen before disposable before other protocols, the protocol's
    own ratio, profile and network before others.

    The order of ``records`` does not matter. If a seed was run twice with different results (on two machines,
    say), the earlier run counts and the board has a message.
    """
    found: dict[BoardKey, list[Record]] = defaultdict(list)
    for record in records:
        found[BoardKey.of(record)].append(record)
    states = {key: _protocol_status(key) for key in found}
    slugs = {key: _slug(key, status) for key, (status, _) in states.items()}
    shared = Counter(slugs.values())
    built = []
    for key, members in found.items():
        slug = slugs[key] if shared[slugs[key]] == 1 else f"{slugs[key]}-{canonical_digest(list(key))[:8]}"
        built.append(_board(key, members, slug, *states[key]))
    order = get_args(ProtocolStatus)
    return sorted(built, key=lambda b: (b.key.reduced, order.index(b.status), not b.usual, b.slug))


def entries_called(board: Board, names: Sequence[str], attack: str) -> list[Entry]:
    """Entries of a board by their labels, in the order of the names.

    Raises:
        UnknownNameError: for a name that is not on the board, or an attack its runs were not put through.
        UsageError: for a name that is there twice.
    """
    by_label = {entry.label: entry for entry in board.entries}
    if len(set(names)) < len(names):
        raise UsageError(f"an entry is named twice: {', '.join(names)}.")
    for name in names:
        if name not in by_label:
            raise UnknownNameError("entry of this board", name, by_label)
    rows = ("clean", *board.key.suite, "union")
    if attack not in rows:
        raise UnknownNameError("attack of this board", attack, rows)
    return [by_label[name] for name in names]


def changed_settings(run: RunSection) -> dict[str, Value]:
    """Options off the track's defaults, then recipe overrides, each by name; what ``--set`` takes.

    Of a method whose card is not installed all options are named.
    """
    options = dict(methods.get(run.method).card.options) if run.method in methods else {}
    for slug in run.plugins:
        if slug in plugins:
            options |= {f"{slug}.{name}": option for name, option in plugins.get(slug).card.options.items()}
    changed = {
        name: value
        for name, value in sorted(run.options.items())
        if name not in options or getattr(options[name], run.track) != value
    }
    return changed | dict(sorted(run.overrides.items()))


def method_label(run: RunSection) -> str:
    """A run's name on a board: method and plug-ins, and the settings that were changed."""
    changed = ", ".join(f"{name}={value}" for name, value in changed_settings(run).items())
    label = "+".join([run.method, *run.plugins])
    return f"{label} ({changed})" if changed else label


def _board(key: BoardKey, records: list[Record], slug: str, status: ProtocolStatus, odd: list[str]) -> Board:
    messages = list(odd)
    runs: dict[str, dict[int, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda r: (r.environment.created, r.result.digest)):
        # The run that it builds on has the same seed, so its key differs from seed to seed.
        seeds = runs[canonical_digest(record.run.model_dump(mode="json", exclude={"seed", "base_key"}))]
        first = seeds.setdefault(record.run.seed, record)
        if first.result.digest != record.result.digest:
            messages.append(
                f"{slug}: {method_label(record.run)}, seed {record.run.seed}, was run more than once with "
                f"different results; record {first.id} of {first.environment.created} counts, {record.id} of "
                f"{record.environment.created} does not."
            )
    labels = {digest: method_label(next(iter(seeds.values())).run) for digest, seeds in runs.items()}
    shared = Counter(labels.values())
    entries = []
    for digest, by_seed in runs.items():
        ordered = [by_seed[seed] for seed in sorted(by_seed)]
        run = ordered[0].run
        label = labels[digest]
        if shared[label] > 1:
            label = f"{label} (card v{run.card_version}, {digest[:6]})"
        if run.options and run.method not in methods:
            messages.append(f"{slug}: no card of method {run.method!r} is installed; its options are all shown.")
        entries.append(_entry(key, label, ordered, status))
    entries = sorted(entries, key=lambda e: e.label) if status == "smoke" else _ranked(entries)
    return Board(key, status, entries, slug, sorted(set(messages)))


def _protocol_status(key: BoardKey) -> tuple[ProtocolStatus, list[str]]:
    try:
        protocol = protocol_for(key.dataset, key.protocol)
    except UnknownNameError as error:
        return "unknown", [f"{error} Its records are shown and flagged."]
    if terms_key(key.dataset) not in protocol.datasets:
        return "unknown", [f"the installed protocol {key.protocol!r} says nothing about {key.dataset}."]
    installed = protocol.digest(key.dataset)
    if installed != key.protocol_digest:
        return "unknown", [
            f"records of protocol {key.protocol!r} have digest {key.protocol_digest[:12]}, the installed one "
            f"has {installed[:12]}: another protocol of the same name, on a board of its own."
        ]
    return protocol.status, []


def _entry(key: BoardKey, label: str, seeds: list[Record], status: ProtocolStatus) -> Entry:
    per_class = np.stack([class_accuracies(record, key.suite) for record in seeds])
    metrics = metrics_from_classes(per_class, key.test_counts, key.train_counts)
    balanced = metrics.balanced[:, -1]
    if len(seeds) == 1:
        kind: IntervalKind = "wilson"
        tests = np.asarray([n for n in key.test_counts if n > 0], dtype=float)
        # Images that give a balanced accuracy its variance under one common accuracy; all of them if the
        # test set is balanced.
        effective = len(tests) ** 2 / (1 / tests).sum()
        low, high = wilson(balanced[0] * effective, effective)
    else:
        kind = "t over seeds"
        low, high = np.clip(np.stack(t_interval(balanced)), 0, 1)
    run = seeds[0].run
    standings = [record.standing for record in seeds if record.standing is not None]
    level = min((standing.level for standing in standings), key=LEVELS.index, default=None)
    flags = {
        CLAIMED: level == "claimed",
        "disputed": any(standing.disputed for standing in standings),
        "lowered": any(standing.broken is not None for standing in standings),
        "off-recipe": any(record.status.off_recipe for record in seeds),
        "reduced": key.reduced,
        "1 seed": len(seeds) == 1,
        "train-eps>eval-eps": number(run.recipe.attack.epsilon, run.epsilon) > run.epsilon + 1e-9
        or any(plugins.get(p).card.raises_epsilon for p in run.plugins if p in plugins),
        "unknown protocol": status == "unknown",
        UNRANKED: run.method in methods and not methods.get(run.method).card.ranked,
    }
    signs = {flag.name for record in seeds for flag in flags_of(record)}
    return Entry(
        label=label,
        runs=seeds,
        metrics=metrics,
        rows=("clean", *key.suite, "union"),
        interval=(float(low), float(high)),
        interval_kind=kind,
        level=level,
        flags=[flag for flag, holds in flags.items() if holds] + [name for name in MEANINGS if name in signs],
    )


def _ranked(entries: list[Entry]) -> list[Entry]:
    """Best first, by rounded balanced worst-case accuracy; the label only settles the order of equals.

    An entry's rank is one more than the number of entries above it that are resolved better (a paired difference, see
    :func:`~ltrobust_bench.evaluation.compare.resolved_pairs`), and never better than that of the entry above it: what
    the data cannot tell apart shares a rank. Entries whose card asks for no rank, and on a public board those that
    nobody verified, stand where their accuracy puts them, and take no rank from others.
    """
    accuracy = {e.label: round(float(e.percent("union", "balanced")), DECIMALS) for e in entries}
    ordered = sorted(entries, key=lambda e: (-accuracy[e.label], e.label))
    taking_part = [e for e in ordered if not {UNRANKED, CLAIMED} & set(e.flags)]
    rank: dict[str, int] = {}
    if taking_part:
        better = np.triu(resolved_pairs([e.runs for e in taking_part]), 1)
        ranks = np.maximum.accumulate(1 + better.sum(axis=0))
        rank = {e.label: int(r) for e, r in zip(taking_part, ranks, strict=True)}
    return [_placed(e, rank.get(e.label)) for e in ordered]


def _placed(entry: Entry, rank: int | None) -> Entry:
    few = rank is not None and rank <= TOP and len(entry.runs) < TOP_SEEDS
    return replace(entry, rank=rank, flags=[*entry.flags, NEEDS_SEEDS] if few else entry.flags)


def _slug(key: BoardKey, status: str) -> str:
    parts = [key.protocol, *([key.protocol_digest[:8]] if status == "unknown" else [])]
    parts += [key.dataset, f"ir{key.imbalance_ratio:g}", *([key.profile] if key.profile != "exp" else [])]
    parts += [key.model, key.track]
    parts += [f"{what}{n}" for what, n in zip(("train", "test", "epochs"), key.limits, strict=True) if n is not None]
    return re.sub(r"[^a-z0-9.]+", "-", "-".join(parts).lower()).strip("-.")
