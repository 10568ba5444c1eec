"""Statements about records computed again from what is in the repository, so that nobody has to be believed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ltrobust_bench.errors import RecordError
from ltrobust_bench.progress import Progress
from ltrobust_bench.records.io import record_files
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.trust import Heard, Results, heard
from ltrobust_bench.records.validate import load
from ltrobust_bench.records.verify import BEYOND, RETRAINED_POINTS, Verification, examples_of, objections, tolerated
from ltrobust_bench.scores.reliability import masking
from ltrobust_bench.verbs.counterexamples import try_examples
from ltrobust_bench.verbs.judging import refuse_imported
from ltrobust_bench.verbs.loading import read_stored
from ltrobust_bench.verbs.verification import (
    Where,
    attacked_again,
    attacked_thoroughly,
    retrain,
    trained_again,
)


def statements_in(results_dir: Path, files: Iterable[Path] = ()) -> list[tuple[Heard, Record]]:
    """The statements about filed records, with the records, in the order of their files.

    Args:
        files: the statements wanted; none: all.

    Raises:
        RecordError: for a file that is none of them.
    """
    documents, _ = load(record_files(results_dir / "records"))
    records = {document.record.id: document.record for document in documents}
    found = {
        one.path.absolute(): (one, records[one.statement.record])
        for one in heard([results_dir / "records"])[0]
        if isinstance(one.statement, Verification) and one.statement.record in records
    }
    wanted = [path.absolute() for path in files]
    for path in wanted:
        if path not in found:
            raise RecordError(f"{path} is no statement about a record in {results_dir / 'records'}.")
    return [found[path] for path in wanted] if wanted else list(found.values())


def recheck(
    one: Heard,
    record: Record,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[str]:
    """What a statement says that does not come out again; empty: it holds.

    The record's network is taken from the repository or trained again. What was attacked is attacked again on the same
    images, what was trained again is trained again, and adversarial images are tried on the network.

    Raises:
        RecordError: if the network cannot be had from what is here.
    """
    statement = one.statement
    assert isinstance(statement, Verification)
    where = Where("a recheck", data_dir, device)
    refuse_imported()
    if statement.places is not None and statement.places[-1] >= record.images:
        return ["it is about images of another test set"]
    if statement.kind == "retrained":
        return _compared(record, statement, retrain(record, where, progress=progress))
    if statement.others:
        return [f"it cannot be computed again: attacks were crafted on {', '.join(statement.others)}"]
    with _network(one.results, record, where, progress) as network:
        if read_stored(network)[0].weights_sha256 != record.result.weights_sha256:
            if statement.kind in BEYOND:
                return ["it cannot be tried: this machine trains another network"]
            again = attacked_again(record, network, None, where, again=True, progress=progress)
            return _compared(record, statement, again)
        if statement.kind == "counterexamples":
            return _otherwise(statement, try_examples(record, network, examples_of(one.path), where), 0)
        if statement.kind == "thorough":
            return _computed(record, statement, attacked_thoroughly(record, network, where, progress=progress))
        places = None if statement.places is None else np.asarray(statement.places)
        again = attacked_again(record, network, places, where, progress=progress)
        return objections(record, again) + _computed(record, statement, again)


def _compared(record: Record, statement: Verification, again: Verification) -> list[str]:
    """What a statement says that a network trained again, and attacked on all images, does not show: of another
    network only the accuracies can be compared, and what is flagged."""
    if (statement.kind, statement.weights_sha256) == (again.kind, again.weights_sha256):
        return objections(record, again) + _computed(record, statement, again)
    return objections(record, again) + _far(statement, again) + _flagged(record, statement, again)


def _computed(record: Record, theirs: Verification, ours: Verification) -> list[str]:
    """What the same network gives otherwise than a statement says."""
    return _otherwise(theirs, ours, tolerated(ours.images)) + _flagged(record, theirs, ours)


def _otherwise(theirs: Verification, ours: Verification, allowed: int) -> list[str]:
    """What comes out otherwise than a statement says, beyond chance."""
    if theirs.images != ours.images:
        return [f"it speaks of {theirs.images} images, and there are {ours.images}"]
    if theirs.places != ours.places:
        return ["it speaks of other images than those that there are"]
    found = []
    for name, said, seen in zip(("clean", "robust"), theirs.bits, ours.bits, strict=True):
        differing = int((said != seen).sum())
        if differing > allowed:
            found.append(f"{differing} of {ours.images} images come out otherwise {name} (allowed: {allowed})")
    return found + _attacked_otherwise(theirs.attacks or {}, ours.attacks or {}, allowed)


def _attacked_otherwise(theirs: Mapping[str, int], ours: Mapping[str, int], allowed: int) -> list[str]:
    """What a thorough evaluation says of attacks that comes out otherwise."""
    if theirs.keys() != ours.keys():
        return [f"it names the attacks {', '.join(theirs)}, and there are {', '.join(ours)}"]
    odd = [name for name in ours if abs(theirs[name] - ours[name]) > allowed]
    return [f"{name} breaks {ours[name]} images, not {theirs[name]} (allowed: {allowed})" for name in odd]


def _flagged(record: Record, theirs: Verification, ours: Verification) -> list[str]:
    """Whether what is measured of the network gives other flags of masked gradients than a statement does."""
    if theirs.reliability is None or ours.reliability is None:
        return []
    classes = len(record.run.train_counts)
    said, seen = (masking(one, classes) for one in (theirs.reliability, ours.reliability))
    return [] if said == seen else [f"it is flagged {', '.join(seen) or 'nothing'}, not {', '.join(said) or 'nothing'}"]


def _far(theirs: Verification, ours: Verification) -> list[str]:
    """What a statement says that another training of the same run makes unlikely: shares of the images looked at."""
    places = np.arange(ours.images) if theirs.places is None else np.asarray(theirs.places)
    allowed = RETRAINED_POINTS + 300 * (0.25 / len(places)) ** 0.5  # and three standard errors of a sample
    found = []
    for name, said, seen in zip(("clean", "robust"), theirs.bits, ours.bits, strict=True):
        apart = 100 * abs(float(said.mean()) - float(seen[places].mean()))
        if apart > allowed:
            found.append(f"trained again, {apart:.1f} points come out otherwise {name} (allowed: {allowed:.1f})")
    return found


@contextmanager
def _network(results: Results, record: Record, where: Where, progress: Progress | None) -> Iterator[Path]:
    """The file of a record's network: the shipped one, or trained again for the while."""
    shipped = results.shipped.get(record.result.weights_sha256)
    if shipped is not None:
        yield shipped
        return
    if not results.again(record):
        raise RecordError(f"the network of record {record.id} is not in the repository and cannot be trained from it.")
    with tempfile.TemporaryDirectory(prefix="ltbench-recheck-") as folder:
        yield trained_again(record, Path(folder), where, progress)
