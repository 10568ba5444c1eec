"""Rules about several records of a board together: what one file cannot show. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.errors import UnknownNameError
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.protocol.spec import terms_key
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.strict import Finding, finding
from ltrobust_bench.records.verify import tolerated


class Filed(Protocol):
    """A record and where it lies, see :class:`ltrobust_bench.records.validate.Document`."""

    @property
    def path(self) -> Path: ...
    @property
    def board(self) -> Path | None: ...
    @property
    def record(self) -> Record: ...


Found = Iterator[tuple[Any, Finding]]


def equal_bits(documents: Sequence[Filed]) -> Found:
    """Networks that were trained apart are told apart: their bits differ on more images than those of one network that
    is attacked twice. Two that collapsed in training, and answer whatever they are shown with one class, are not."""
    groups: dict[tuple[Any, ...], list[Filed]] = defaultdict(list)
    for document in documents:
        run = document.record.run
        same_images = (run.dataset, run.source_sha256, run.test_index_sha256, run.epsilon, run.threat_model)
        groups[(*same_images, document.record.images, tuple(document.record.rows))].append(document)
    for members in groups.values():
        rows = np.stack([_bits(document.record) for document in members])
        allowed = tolerated(rows.shape[1])
        for i, document in enumerate(members[1:], 1):
            differing = (rows[:i] != rows[i]).sum(axis=1)
            nearest = int(differing.argmin())
            other = members[nearest]
            if differing[nearest] <= allowed and not _alike(document.record, other.record):
                says = f"must differ from those of {other.path.name} on more than {allowed} images: another network"
                yield document, finding("result.bits", says, f"{int(differing[nearest])} images")


def _bits(record: Record) -> np.ndarray:
    """What became of each image: one number per image, of its bits under clean and every attack, shape [T]."""
    bits = np.stack([record.bits(name) for name in record.rows])
    found: np.ndarray = bits.T.astype(np.int64) @ (1 << np.arange(len(bits), dtype=np.int64))
    return found


def _collapsed(record: Record) -> bool:
    """Whether the network has one answer to every image, attacked or not: right on one class, and on nothing else."""
    right = record.bits("clean")
    classes = np.unique(record.labels()[right])
    return len(classes) == 1 and all(
        np.array_equal(record.bits(name), record.labels() == classes) for name in record.rows
    )


def _alike(one: Record, other: Record) -> bool:
    """Whether two records may have the same bits: of one network, or of two that both collapsed."""
    weights = one.result.weights_sha256 == other.result.weights_sha256
    return _one_run(one, other) or (not weights and _collapsed(one) and _collapsed(other))


def _one_run(one: Record, other: Record) -> bool:
    """Whether two records may be of one network: the same run, filed twice (another rule's business), or the same
    weights of one seed in another form, as post-hoc methods have it."""
    weights = one.result.weights_sha256 == other.result.weights_sha256
    return one.run.key() == other.run.key() or (weights and one.run.seed == other.run.seed)


def one_name_a_split(documents: Sequence[Filed]) -> Found:
    """A split is known by one profile and one imbalance ratio: 20 and 20.001 of the same images are one board, and so
    are steps and exponential decay where no class is cut."""
    groups: dict[tuple[Any, ...], list[Filed]] = defaultdict(list)
    for document in documents:
        run = document.record.run
        images = (run.dataset, run.source_sha256, run.train_index_sha256, run.test_index_sha256)
        groups[(*images, *run.cuts.items())].append(document)
    for members in groups.values():
        profiles = {document.record.run.profile for document in members}
        profile = "exp" if "exp" in profiles else min(profiles)
        ratio = usual_ratio([d.record.run for d in members if d.record.run.profile == profile])
        for document in members:
            for name, usual in (("profile", profile), ("imbalance_ratio", ratio)):
                seen = getattr(document.record.run, name)
                if seen != usual:
                    yield document, finding(f"run.{name}", f"must be {usual}, by which boards know this split", seen)


def usual_ratio(runs: Sequence[RunSection]) -> float:
    """The imbalance ratio by which boards know the split of some runs: the protocol's if it gives this split, else the
    one with the fewest digits."""
    ratios = {run.imbalance_ratio for run in runs}
    for run in runs:
        try:
            terms = protocol_for(run.dataset, run.protocol)
        except UnknownNameError:
            continue
        if terms_key(run.dataset) in terms.datasets:
            stated = terms.terms(run.dataset).imbalance_ratio
            if stated in ratios:
                return float(stated)
    return min(ratios, key=lambda ratio: (len(f"{ratio!r}"), ratio))


def seeds_from_zero(documents: Sequence[Filed]) -> Found:
    """The seeds of an entry are 0, 1, 2 and so on: nobody picks those that came out well."""
    entries: dict[tuple[Any, str], list[Filed]] = defaultdict(list)
    for document in documents:
        if document.board is not None:
            entries[document.board, document.record.run.entry_key()].append(document)
    for members in entries.values():
        seeds = {document.record.run.seed for document in members}
        missing = next(seed for seed in range(len(seeds) + 1) if seed not in seeds)
        for document in members:
            if (seed := document.record.run.seed) > missing:
                yield document, finding("run.seed", f"must come after seed {missing}, which is not there", seed)
