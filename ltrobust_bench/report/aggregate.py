"""From records to boards: what may be compared, which runs are seeds of one entry, who is first."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import numpy as np

from ltrobust_bench.cards import Value, methods, plugins
from ltrobust_bench.data.extra import extra_name
from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.numbers import number
from ltrobust_bench.plan.make import settings_of
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import Policy, RunSection, combined
from ltrobust_bench.protocol import load_protocol, protocols
from ltrobust_bench.protocol.spec import Track, terms_key
from ltrobust_bench.records.numbers import class_accuracies, flags_of
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.together import usual_ratio
from ltrobust_bench.records.verify import LEVELS
from ltrobust_bench.report.aside import ASIDE, CLAIMED, MASKED, aside, misleading
from ltrobust_bench.report.board import METRICS, Board, BoardKey, Entry, ProtocolStatus
from ltrobust_bench.report.compare import resolved_pairs
from ltrobust_bench.scores.intervals import Spread, images_behind, spreads
from ltrobust_bench.scores.metrics import Metrics, metrics_from_classes
from ltrobust_bench.scores.reliability import MASKING, MEANINGS
from ltrobust_bench.terms import canonical_digest

DECIMALS = 2
"""Decimals of every percentage."""
TOP, TOP_SEEDS = 3, 5
"""A claim to one of the first ranks needs so many seeds."""
UNRANKED, NEEDS_SEEDS = "unranked", f"needs {TOP_SEEDS} seeds"
"""Flags of an entry whose card asks for no rank, and of one that is among the first with too few seeds."""
OFF_RECIPE = "off-recipe"
"""Flag of an entry whose recipe is not the track's: it is shown, and compared by whoever likes to."""
EXTRA, LEAK = "extra data", "tail leak"
"""Flags of an entry that was trained on more than the split, and of one where that may hold what the cut took away."""
OTHER_SEEDS = "other seeds"
"""Flag of an entry that no test compares with one above it."""
OTHER_PRECISION = "other precision"
"""Flag of an entry that was trained in another precision than its protocol states."""
EXPLODED = "loss exploded"
"""Flag of an entry whose training went astray and came to an end all the same."""
FLAGS = {
    CLAIMED: "nobody has attacked its weights again or trained it again: shown, but not ranked",
    MASKED: f"it has a flag of masked gradients ({', '.join(MASKING)}): shown, but not ranked before a thorough "
    "evaluation of every run that has one is among the statements about it",
    "disputed": "somebody looked at it again and found something else; its record's page says what",
    "lowered": "somebody broke images that its suite left standing; they count as broken",
    OFF_RECIPE: "recipe settings were given by hand, so it is not on the track's terms: shown, but not ranked",
    EXTRA: "trained on images beyond the split's, or from weights that were (column extra_data): shown, but not ranked",
    LEAK: "its extra data, what generated or labelled them, or the data of its first weights, come from the full "
    "balanced training set, or nobody says: what the cut took from the tail may have reached the training",
    EXPLODED: "the mean loss of an epoch was more than ten times that of guessing",
    "reduced": "training images, test images or epochs were cut by hand",
    "1 seed": "a single run: its interval, and the test against any other entry, leave out the spread between seeds",
    "train-eps>eval-eps": "trained with radii above the one it is attacked with",
    "unknown protocol": "no installed protocol has the digest of the one it was run under",
    OTHER_PRECISION: "trained in another precision than the protocol states, which is a way of training: the verdict "
    "is float32's, and ranked",
    UNRANKED: "a reference, or not the authors' method: its card asks for no rank",
    OTHER_SEEDS: "no seed in common with an entry above it: nothing tells the two apart, so its rank may be too good",
    NEEDS_SEEDS: f"a claim to ranks 1 to {TOP} needs {TOP_SEEDS} seeds; this entry has fewer",
    **MEANINGS,
}
"""Every flag of an entry and what it means: those of a board, then the signs of an unreliable evaluation."""


def boards(records: Iterable[Record]) -> list[Board]:
    """The boards of some records: full before reduced, frozen before candidate before disposable ones, the data
    set's own protocol and the protocol's own ratio, profile and network before others.

    The order of ``records`` does not matter. If a seed was run twice with different results (on two machines,
    say), the earlier run counts and the board has a message.
    """
    found = _by_terms(records)
    states = {key: protocol_status(key) for key in found}
    slugs = {key: slug_of(key, status) for key, (status, _) in states.items()}
    owner = {slugs[key]: key for key in sorted(found, key=lambda key: _claim(key, found[key]))}

    built = []
    for key, own in found.items():
        slug = slugs[key] if owner[slugs[key]] == key else f"{slugs[key]}-{canonical_digest(list(key))[:8]}"
        built.append(_board(key, own, slug, *states[key]))
    built = [_ranked(board) for board in built]
    built = [replace(board, reference=_reference(board.key, built)) for board in built]
    order = get_args(ProtocolStatus)
    return sorted(built, key=lambda b: (b.key.reduced, order.index(b.status), not b.main, not b.usual, b.slug))


def _claim(key: BoardKey, records: Sequence[Record]) -> tuple[int, int, str]:
    """How good a board's claim is to an address that several would have: the one with the most test images keeps it,
    then the one with the most records that are more than claimed. So no board moves another's by coming after it."""
    verified = sum(record.standing is None or record.standing.level != CLAIMED for record in records)
    return sum(key.test_counts), verified, canonical_digest(list(key))


def _by_terms(records: Iterable[Record]) -> dict[BoardKey, list[Record]]:
    """The records of each board. Runs on the same images are one board, whatever imbalance ratio they were asked for:
    it bears the ratio by which the split is known, and keeps its address."""
    splits: dict[BoardKey, list[Record]] = defaultdict(list)
    for record in records:
        splits[BoardKey.of(record)._replace(imbalance_ratio=0)].append(record)
    return {
        key._replace(imbalance_ratio=usual_ratio([record.run for record in own])): own for key, own in splits.items()
    }


REFERENCE = "at"
"""The entry of a board of balanced classes that tells what the long tail costs, if it is beyond doubt."""


def _reference(key: BoardKey, built: Iterable[Board]) -> Entry | None:
    wanted = key._replace(profile="balanced")
    if key == wanted or key.imbalance_ratio == 1:
        return None
    for board in built:
        same = wanted._replace(train_counts=board.key.train_counts, train_index_sha256=board.key.train_index_sha256)
        if board.key == same:
            return next((e for e in board.entries if e.label == REFERENCE and beyond_doubt(e)), None)
    return None


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
    return _changed(run.method, run.plugins, run.track, run.options, run.overrides)


def _changed(
    method: str, around: Sequence[str], track: Track, given: Mapping[str, Value], overrides: Mapping[str, Value]
) -> dict[str, Value]:
    options = dict(methods.get(method).card.options) if method in methods else {}
    for slug in around:
        if slug in plugins:
            options |= {f"{slug}.{name}": option for name, option in plugins.get(slug).card.options.items()}
    changed = {
        name: value
        for name, value in sorted(given.items())
        if name not in options or getattr(options[name], track) != value
    }
    return changed | dict(sorted(overrides.items()))


def usual_policy(protocol: str) -> Policy:
    """How a protocol has runs computed, as far as it is installed."""
    return Policy.asked(load_protocol(protocol).crafting, False, None) if protocol in protocols else Policy()


def method_label(run: RunSection) -> str:
    """A run's name on a board: method and plug-ins, and the settings that were changed."""
    return _label(run.method, run.plugins, changed_settings(run) | run.asked_beyond, run.policy, run.protocol)


def told_apart(label: str, run: RunSection, digest: str) -> str:
    """A label that another entry has, too, with what tells the two apart: the version of the card, and the entry's
    digest."""
    return f"{label} (card v{run.card_version}, {digest[:6]})"


def request_label(request: Request) -> str:
    """The name on a board of what is asked for; needs no data."""
    options, overrides = settings_of(request)
    changed = _changed(request.method, request.plugins, request.track, options, overrides)
    changed |= {"extra_data": extra_name(request.extra_data)} if request.extra_data else {}
    changed |= {"pretrained": Path(request.pretrained).name} if request.pretrained else {}
    protocol = protocol_for(request.dataset, request.protocol).name
    return _label(request.method, request.plugins, changed, request.policy or usual_policy(protocol), protocol)


def _label(method: str, around: Sequence[str], changed: Mapping[str, Value], policy: Policy, protocol: str) -> str:
    usual = usual_policy(protocol).model_dump()
    otherwise = {name: value for name, value in policy.model_dump().items() if value != usual[name]}
    shown = ", ".join(f"{name}={value}" for name, value in {**changed, **otherwise}.items())
    label = combined(method, around)
    return f"{label} ({shown})" if shown else label


def _board(key: BoardKey, records: list[Record], slug: str, status: ProtocolStatus, odd: list[str]) -> Board:
    runs, again = _entries_of(records)
    messages = [*odd, *(f"{slug}: {text}" for text in again)]
    labels = {digest: method_label(seeds[0].run) for digest, seeds in runs.items()}
    shared = Counter(labels.values())
    for digest, label in labels.items():
        if shared[label] > 1:
            labels[digest] = label + aside(runs[digest][0])  # the ranked entry keeps its name
    shared = Counter(labels.values())
    # All runs at once: the arrays of one entry are small, and there may be hundreds.
    per_class = class_accuracies([record for seeds in runs.values() for record in seeds], key.suite)
    metrics = metrics_from_classes(per_class, key.test_counts, key.train_counts)
    sizes = [len(seeds) for seeds in runs.values()]
    values = np.stack([getattr(metrics, name) for name in METRICS], axis=-1)
    entries, start = [], 0
    for (digest, seeds), spread in zip(runs.items(), spreads(values, sizes, _images(key), LOWEST), strict=True):
        run = seeds[0].run
        label = labels[digest]
        if shared[label] > 1:
            label = told_apart(label, run, digest)
        if run.options and run.method not in methods:
            messages.append(f"{slug}: no card of method {run.method!r} is installed; its options are all shown.")
        own = Metrics(*(getattr(metrics, f.name)[start : start + len(seeds)] for f in fields(Metrics)))
        entries.append(_entry(key, label, seeds, own, spread, status))
        start += len(seeds)
    if status == "smoke":
        entries.sort(key=lambda e: e.label)
    else:
        entries.sort(key=lambda e: (-round(float(e.percent("union", "balanced")), DECIMALS), e.label))
    return Board(key, status, entries, slug, sorted(set(messages)))


def _entries_of(records: Iterable[Record]) -> tuple[dict[str, list[Record]], list[str]]:
    """The runs of each entry by seed, under the entry's key; and a message for each seed that was run more than once
    with different results."""
    found: dict[str, dict[int, Record]] = defaultdict(dict)
    messages = []
    for record in sorted(records, key=lambda r: (r.environment.created, r.result.digest)):
        seeds = found[record.tally.entry_key + aside(record)]
        first = seeds.setdefault(record.run.seed, record)
        if first.result.digest != record.result.digest:
            messages.append(
                f"{method_label(record.run)}, seed {record.run.seed}, was run more than once with different results; "
                f"record {first.id} of {first.environment.created} counts, {record.id} of "
                f"{record.environment.created} does not."
            )
    for words in ASIDE:
        for key in [key for key in found if key.endswith(words) and key.removesuffix(words) not in found]:
            found[key.removesuffix(words)] = found.pop(key)  # none of them has a rank: one entry, which has none
    return {key: [seeds[seed] for seed in sorted(seeds)] for key, seeds in found.items()}, messages


def protocol_status(key: BoardKey) -> tuple[ProtocolStatus, list[str]]:
    """A protocol's status by the digest that runs name, and what is odd about it."""
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


def _images(key: BoardKey) -> np.ndarray:
    """Test images behind each of ``METRICS``; NaN for those that are no proportion."""
    known = images_behind(key.train_counts, key.test_counts)
    return np.asarray([known.get(name, np.nan) for name in METRICS])


LOWEST = np.asarray([-1.0 if name == "head_tail_gap" else 0.0 for name in METRICS])


def _entry(
    key: BoardKey, label: str, seeds: list[Record], metrics: Metrics, spread: Spread, status: ProtocolStatus
) -> Entry:
    run = seeds[0].run
    standings = [record.standing for record in seeds if record.standing is not None]
    level = min((standing.level for standing in standings), key=LEVELS.index, default=None)
    flags = {
        CLAIMED: level == "claimed" and all(standing.public for standing in standings),
        MASKED: any(misleading(record) for record in seeds),
        "disputed": any(standing.disputed for standing in standings),
        "lowered": any(standing.broken is not None for standing in standings),
        OFF_RECIPE: any(record.status.off_recipe for record in seeds),
        EXTRA: run.beyond is not None,
        LEAK: run.leaks,
        EXPLODED: any(record.status.exploded for record in seeds),
        "reduced": key.reduced,
        "1 seed": len(seeds) == 1,
        "train-eps>eval-eps": number(run.recipe.attack.epsilon, run.epsilon) > run.epsilon + 1e-9
        or (run.method in methods and methods.get(run.method).card.raises_epsilon)
        or any(plugins.get(p).card.raises_epsilon for p in run.plugins if p in plugins),
        "unknown protocol": status == "unknown",
        OTHER_PRECISION: "precision" in run.overrides,
        UNRANKED: run.method in methods and not methods.get(run.method).card.ranked,
    }
    signs = {flag.name for record in seeds for flag in flags_of(record)}
    return Entry(
        label=label,
        runs=seeds,
        metrics=metrics,
        rows=("clean", *key.suite, "union"),
        spread=spread,
        interval_kind="wilson" if len(seeds) == 1 else "t over seeds",
        level=level,
        flags=[flag for flag, holds in flags.items() if holds] + [name for name in MEANINGS if name in signs],
    )


def on_terms(entry: Entry) -> bool:
    """Whether an entry is a method on the board's own terms; the others are shown beside them."""
    return not {UNRANKED, OFF_RECIPE, EXTRA} & set(entry.flags)


def beyond_doubt(entry: Entry) -> bool:
    """Whether an entry's runs are verified, where boards are public, and none is known to mislead its attacks."""
    return not {CLAIMED, MASKED} & set(entry.flags)


def _competing(board: Board) -> list[Entry]:
    """Entries that ranks go to. The others stand where their accuracy puts them, and take no rank from any."""
    if board.status == "smoke":
        return []
    return [entry for entry in board.entries if beyond_doubt(entry) and on_terms(entry)]


def _ranks(entries: Sequence[Entry]) -> list[int]:
    """The ranks of entries in their order, see :func:`_ranked`."""
    if not entries:
        return []
    better = resolved_pairs([entry.runs for entry in entries])
    ranks = np.ones(len(entries), dtype=int)
    for place in range(1, len(entries)):
        above = ranks[:place][better[:place, place]]
        ranks[place] = max(1 + len(above), 1 + above.max(initial=0), ranks[place - 1])
    return ranks.tolist()


def _ranked(board: Board) -> Board:
    """A board whose entries have their ranks: best first, by rounded balanced worst-case accuracy; the label only
    settles the order of equals.

    An entry's rank is at least one more than the number of entries above it that are resolved better (a paired
    difference, see :func:`~ltrobust_bench.report.compare.resolved_pairs`), worse than the rank of each of these, and
    never better than that of the entry above it. So no entry is resolved better than another of its rank below it; of
    two ranks, the data need not tell the entries apart.
    """
    competing = _competing(board)
    rank = {entry.label: place for entry, place in zip(competing, _ranks(competing), strict=True)}
    apart = _with_other_seeds(competing)
    return replace(board, entries=[_placed(e, rank.get(e.label), e.label in apart) for e in board.entries])


def _with_other_seeds(ordered: Iterable[Entry]) -> set[str]:
    """Labels of entries that share no seed with one above."""
    above: set[frozenset[int]] = set()
    found = set()
    for entry in ordered:
        seeds = frozenset(record.run.seed for record in entry.runs)
        if any(seeds.isdisjoint(others) for others in above):
            found.add(entry.label)
        above.add(seeds)
    return found


def _placed(entry: Entry, rank: int | None, apart: bool) -> Entry:
    few = rank is not None and rank <= TOP and len(entry.runs) < TOP_SEEDS
    flags = {OTHER_SEEDS: apart, NEEDS_SEEDS: few}
    return replace(entry, rank=rank, flags=[*entry.flags, *(flag for flag, holds in flags.items() if holds)])


def slug_of(key: BoardKey, status: str) -> str:
    """A folder name that tells terms apart as people do."""
    parts = [key.protocol, *([key.protocol_digest[:8]] if status == "unknown" else [])]
    parts += [key.dataset, f"ir{key.imbalance_ratio:g}", *([key.profile] if key.profile != "exp" else [])]
    parts += [key.model, key.track]
    parts += [f"{name.removeprefix('limit_')}{value}" for name, value in key.cuts]
    slug = re.sub(r"[^a-z0-9.]+", "-", "-".join(parts).lower()).strip("-.")
    return slug if len(slug) <= LONGEST_SLUG else f"{slug[:LONGEST_SLUG]}-{canonical_digest(list(key))[:8]}"


LONGEST_SLUG = 150
"""A file system's names have 255 bytes, and a record may call protocol, data set and network what it likes."""
