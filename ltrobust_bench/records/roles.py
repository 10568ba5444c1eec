"""Who may state what: the list of keys itself, signatures that are new, and that nobody verifies his own record.

Git tells who added a record. Where there is no history (an installed package, a shallow clone), only the files are
examined; continuous integration has it all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from ltrobust_bench.errors import RecordError
from ltrobust_bench.records.history import History, author_of
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.signing import SUFFIX, checked, keys, signature_of
from ltrobust_bench.records.strict import Finding, finding
from ltrobust_bench.records.trust import Results, heard
from ltrobust_bench.records.verify import VERIFICATIONS, Verification

Findings = Iterator[tuple[Path, Finding]]


def wrong_roles(board: Path, records: Mapping[str, tuple[Path, Record]], history: History) -> Findings:
    """What is wrong with keys and signatures beside a folder ``records``.

    Args:
        records: of that board, with their files, by id.
        history: what changed since the commit that is compared with.
    """
    results = Results(board.parent)
    names: dict[str, tuple[str, ...]] = {}
    if results.public:
        try:
            names = {name: key.names for key in keys(results.signers) for name in key.names}
        except RecordError as error:
            yield results.signers, finding("file", f"must list keys as ssh-keygen(1) says: {error}", "another line")
    yield from _odd_files(results.folder)
    for one in heard([board])[0]:
        about = records.get(one.statement.record)
        signed = signature_of(one.path)
        new = one.path.absolute() in history.touched
        if new and isinstance(one.statement, Verification) and one.statement.graph_sha256 is None:
            allowed = "must be there: what is new is made by `ltbench record verify` or `lower`, which attack the graph"
            yield one.path, finding("graph_sha256", allowed, "nothing")
        if new and isinstance(one.statement, Verification) and one.statement.unmeasured:
            allowed = "must be there: what is new says what was measured of the graph, as `ltbench record verify` does"
            yield one.path, finding("reliability", allowed, "nothing")
        if new and names and not signed.is_file():
            allowed = "must be signed (ltbench record sign): a key is listed, so what is new does not count unsigned"
            yield one.path, finding("signature", allowed, "none")
        if not results.public or not signed.is_file():
            continue
        if history.touched & {one.path.absolute(), signed.absolute()}:
            now = checked(one.path, results.signers, datetime.now(UTC))
            if not (now.signer and one.signer):
                allowed = "must be by a key of results/signers that counts today: this signature is new"
                yield signed, finding("signature", allowed, now.why)
        if about is not None and isinstance(one.statement, Verification) and one.signer:
            yield from _own(one.path, names.get(one.signer, (one.signer,)), *about, history)


def _own(statement: Path, names: tuple[str, ...], file: Path, record: Record, history: History) -> Findings:
    """Nobody verifies his own record: one that he added, or that comes in the same pull request."""
    author = author_of(file)
    if author and author.lower() in {name.lower() for name in names}:
        yield statement, finding("signature", f"must not be by {author}, who added record {record.id}", names[0])
    elif {statement.absolute(), file.absolute()} <= history.touched:
        allowed = "must come after the record: a pull request does not verify what it adds"
        yield statement, finding("file", allowed, statement.name)


def _odd_files(results: Path) -> Findings:
    """Signatures and images that belong to no statement."""
    for folder in (results / VERIFICATIONS, results / "retractions"):
        for path in sorted(folder.glob("*")):
            of = path.with_name(path.name.removesuffix(SUFFIX)) if path.suffix == SUFFIX else path.with_suffix(".json")
            if path.suffix not in (SUFFIX, ".npz", ".json") or not of.is_file():
                allowed = "must be a statement, its signature (.json.sig) or its images (.npz)"
                yield path, finding("file", allowed, path.name)
