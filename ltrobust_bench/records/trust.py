"""Which statements about records count, and what follows for the records. No torch here.

A board is a public one if a list of keys, ``signers``, lies beside its folder ``records``. There, a statement counts if

- it is **signed** by a listed key (:mod:`ltrobust_bench.records.signing`), or
- it can be **computed again** by anybody: the record's network is shipped in ``weights``, or can be trained again,
  because its data come with the package, or are known and its protocol is a small one. ``ltbench record recheck`` does
  it, when it is merged.

Counterexamples count if moreover the images lie there. Everything else is a claim: it is shown and changes nothing.
Without a list of keys a board is somebody's own, and whatever lies there counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from functools import cached_property
from pathlib import Path

from ltrobust_bench.data.known import is_known
from ltrobust_bench.data.registry import datasets
from ltrobust_bench.errors import CheckpointError, RecordError
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.protocol import load_protocol, protocols
from ltrobust_bench.protocol.spec import terms_key
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.records.retract import RETRACTIONS, Retraction, folders_beside, read_retraction
from ltrobust_bench.records.schema import Record, Said
from ltrobust_bench.records.signing import SIGNERS, checked
from ltrobust_bench.records.verify import (
    VERIFICATIONS,
    Verification,
    examples_of,
    lacking,
    lowered,
    objections,
    read_verification,
    standing,
    too_few,
)
from ltrobust_bench.records.weights import FOLDER as WEIGHTS
from ltrobust_bench.records.weights import objection, read_index
from ltrobust_bench.scores.reliability import masking

Statement = Retraction | Verification
FILED = 25_000_000
"""Bytes of a file of examples that is kept beside the records; 2,000 CIFAR images in float32."""
UNSIGNED = "a claim: no listed key signed it, and it cannot be computed again from what is here"


@dataclass(frozen=True)
class Results:
    """A folder of results: ``records``, and what lies beside them."""

    folder: Path

    @property
    def signers(self) -> Path:
        return self.folder / SIGNERS

    @property
    def public(self) -> bool:
        """Whether claims are not ranked here, and statements must be trustworthy to count."""
        return self.signers.is_file()

    @cached_property
    def shipped(self) -> dict[str, Path]:
        """Files of networks by the digest of their tensors, as far as they are what the folder's index states."""
        folder = self.folder / WEIGHTS
        try:
            index = read_index(folder)
        except CheckpointError:
            return {}
        return {
            one.weights_sha256: folder / one.file for one in index.values() if not objection(folder / one.file, one)
        }

    def again(self, record: Record) -> str:
        """How anybody can have a record's network, in words; empty: he cannot."""
        if record.result.weights_sha256 in self.shipped:
            return "can be computed again: its network is in the repository"
        run = record.run
        ours = run.dataset in datasets and not isinstance(datasets.entry(run.dataset).target, str)  # no foreign code
        if ours and not datasets.get(run.dataset).folder:
            return "can be computed again: its data come with the package, so its network can be trained again"
        if ours and is_known(run.dataset) and _small(run):
            return "can be computed again: its data are known, and its protocol is small enough to train it again"
        return ""


def _small(run: RunSection) -> bool:
    """Whether a run is of a protocol that says of itself that anybody can do it again."""
    if run.protocol not in protocols:
        return False
    protocol = load_protocol(run.protocol)
    covered = terms_key(run.dataset) in protocol.datasets
    return protocol.small and covered and protocol.digest(run.dataset) == run.protocol_digest


@dataclass(frozen=True)
class Heard:
    """A statement, where it lies, and what it is worth there."""

    statement: Statement
    path: Path
    results: Results

    @property
    def when(self) -> datetime:
        """Its date; of a day, the last second."""
        if isinstance(self.statement, Retraction):
            return datetime.combine(datetime.fromisoformat(self.statement.date), time(23, 59, 59), UTC)
        return datetime.strptime(self.statement.environment.created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)

    @property
    def signer(self) -> str:
        """The name of the key that signed it and counted on its date; empty: none."""
        return self._signature[0]

    @cached_property
    def _signature(self) -> tuple[str, str]:
        try:
            found = checked(self.path, self.results.signers, self.when)
        except ValueError:  # no date that there was
            return "", UNSIGNED
        return found.signer, found.why

    def worth(self, record: Record | None) -> tuple[bool, str]:
        """Whether it counts, and why or why not, in words."""
        if not self.results.public:
            return True, "on a board of its own, without a list of keys"
        if isinstance(self.statement, Verification) and self.statement.kind == "counterexamples":
            missing = _missing_examples(self.statement, self.path)
            if missing:
                return False, f"a claim: {missing}"
        signer, why = self._signature
        if signer:
            return True, why
        mine = isinstance(self.statement, Verification) and not self.statement.others  # nothing that is not here
        again = self.results.again(record) if record and mine else ""
        return (True, again) if again else (False, UNSIGNED if why == "nobody signed it" else f"a claim: {why}")


def _missing_examples(statement: Verification, path: Path) -> str:
    """What keeps anybody from trying counterexamples; empty: nothing."""
    file = examples_of(path)
    if statement.examples_sha256 is None or not file.is_file() or file.is_symlink():
        return "the adversarial images are not there, so nobody can try them"
    try:
        digest = hashlib.sha256(read_bytes(file, FILED)).hexdigest()
    except (OSError, ValueError):
        return f"the adversarial images there are no plain file of at most {FILED / 1e6:g} MB"
    return "" if digest == statement.examples_sha256 else "the images there are others than those it speaks of"


def heard(places: Iterable[Path]) -> tuple[list[Heard], list[str]]:
    """The statements about records in some places, and a message for each file that is none.

    Args:
        places: folders ``records``, what lies in them, or the folder above.
    """
    found, problems = list[Heard](), []
    for results, path, read in _statement_files(places):
        try:
            found.append(Heard(read(path), path, results))
        except RecordError as error:
            problems.append(str(error))
    return found, problems


def _statement_files(places: Iterable[Path]) -> Iterator[tuple[Results, Path, type]]:
    places = list(places)
    for name, read in ((RETRACTIONS, read_retraction), (VERIFICATIONS, read_verification)):
        for folder in sorted(folders_beside(places, name)):
            results = Results(folder.parent)
            yield from ((results, path, read) for path in sorted(folder.glob("*.json")))  # type: ignore[misc]


def retracted(places: Iterable[Path]) -> dict[str, Retraction]:
    """The retractions that count, by the record's id."""
    found = [one for one in heard(places)[0] if isinstance(one.statement, Retraction) and one.worth(None)[0]]
    return {one.statement.record: one.statement for one in found if isinstance(one.statement, Retraction)}


def judged(
    records: Sequence[Record], places: Iterable[Path], *, keep_retracted: bool = False
) -> tuple[list[Record], list[str]]:
    """Records that are not retracted, with what others said about them, and a message for each file that says nothing
    readable; unchanged where nothing is said and no list of keys makes the board a public one.

    Args:
        places: folders ``records``, what lies in them, or the folder above.
        keep_retracted: whether retracted records are among them all the same.
    """
    places = list(places)
    statements, problems = heard(places)
    public = any(Results(folder).public for folder in _results_folders(places))
    about: dict[str, list[Heard]] = {}
    for one in statements:
        about.setdefault(one.statement.record, []).append(one)
    found = []
    for record in records:
        mine = about.get(record.id, [])
        weighed = [(one, *one.worth(record)) for one in mine]
        gone = any(counts and isinstance(one.statement, Retraction) for one, counts, _ in weighed)
        if gone and not keep_retracted:
            continue
        if mine or public:
            trusted = [one.statement for one, counts, _ in weighed if counts]
            said = tuple(_said(record, *one) for one in weighed)
            follows = standing(record, [t for t in trusted if isinstance(t, Verification)], said)
            record = record.judged(replace(follows, public=public))
        found.append(record)
    return found, problems


def _results_folders(places: Iterable[Path]) -> set[Path]:
    return {folder.parent for folder in folders_beside(places, VERIFICATIONS)}


def _said(record: Record, one: Heard, counts: bool, why: str) -> Said:
    statement = one.statement
    if isinstance(statement, Retraction):
        return Said("retraction", "", statement.date, counts, why, f"asks to retract it: {statement.reason}")
    against = objections(record, statement)
    lost = lowered(record, statement)
    if statement.kind == "counterexamples":
        says = "; ".join(against) or f"breaks {lost} images that counted as robust"
    elif statement.kind == "thorough":
        tried = f"{len(statement.attacks or {})} attacks beside the suite break {lost} images that counted as robust"
        part = lacking(record, statement)
        without = [f"{name} was not run: {why}" for name, why in (statement.not_run or {}).items()]
        says = "; ".join(against or [f"{tried}{part and f', but {part}'}", *without])
    elif against:
        says = "; ".join(against)
    elif too_few(record, statement):
        says = f"looked at too few images to confirm it ({statement.images})"
    else:
        says = f"confirms it on {statement.images} images" + (
            f", and breaks {lost} that counted as robust" * (lost > 0)
        )
    flagged = masking(statement.reliability, len(record.run.train_counts))
    says += f"; flagged {', '.join(flagged)}" if flagged else ""
    says += "; does not say what it measured, so it confirms nothing" if statement.unmeasured else ""
    says += " (its graph was attacked)" if statement.graph_sha256 else " (its method's own module was attacked)"
    return Said(statement.kind, statement.by, statement.environment.created[:10], counts, why, says)


__all__ = ["Heard", "Results", "Statement", "heard", "judged", "retracted"]
