"""Examining records: each file on its own, the files together, and against git. No torch here.

Every check is a rule with a name. Those about one record are in ``rules/``; those about several are here.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from ltrobust_bench.errors import CheckpointError, RecordError, UsageError
from ltrobust_bench.records import together
from ltrobust_bench.records.history import changes_since
from ltrobust_bench.records.io import decode, record_files
from ltrobust_bench.records.origin import repository_of, wrong_origin
from ltrobust_bench.records.retract import RETRACTIONS, Retraction, board_of, read_retraction
from ltrobust_bench.records.roles import wrong_roles
from ltrobust_bench.records.rules import RULES, Case
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.signing import SIGNERS
from ltrobust_bench.records.strict import MOST_FINDINGS, Finding, finding, read_bytes
from ltrobust_bench.records.trust import retracted
from ltrobust_bench.records.verify import BEYOND, FEWEST, VERIFICATIONS, Verification, read_verification, too_few
from ltrobust_bench.records.weights import FOLDER, INDEX, MOST_BYTES, objection, read_index
from ltrobust_bench.terms import printable


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file.

    Attributes:
        path: the file, printable.
        rule: name of the rule that it breaks.
        field: dotted name; ``file`` for the file as a whole.
        allowed: what would be right, in words.
        seen: what is there instead.
    """

    path: str
    rule: str
    field: str
    allowed: str
    seen: str

    def __str__(self) -> str:
        return f"{self.path}: {self.field}: {self.allowed} (got {self.seen}) [{self.rule}]"


@dataclass(frozen=True)
class Document:
    """A record and where it lies.

    Attributes:
        path: its file.
        board: the folder ``records`` it lies in; None: no board shows it.
        record: what is in it.
    """

    path: Path
    board: Path | None
    record: Record

    @property
    def place(self) -> str | None:
        """Its place below ``records``."""
        return None if self.board is None else self.path.absolute().relative_to(self.board).as_posix()


@dataclass(frozen=True)
class Report:
    """What an examination found.

    Attributes:
        records: number of files examined.
        retracted: how many of them are retracted; rules are not applied to these.
        against: the commit that files were compared with, in words; empty: none.
        problems: in the order of the files.
        notes: what could not be examined, and why.
    """

    records: int
    retracted: int
    against: str
    problems: list[Problem]
    notes: list[str] = field(default_factory=list)


def validate(paths: Sequence[Path], *, against: str | None = None, now: datetime | None = None) -> Report:
    """Examine records.

    Files in a folder ``records`` are what a board is made of: they must lie in their place, be full runs and name their
    commit; retractions and verifications beside that folder are examined with it, and what is retracted is not. Other
    files must only be sound.

    Args:
        paths: files, and folders to look through.
        against: commit that nothing may have been edited or deleted since; None: ``HEAD``, in a git checkout.
        now: the time of the examination; default: now.

    Raises:
        UsageError: for a path that does not exist and did not in the commit, nothing to examine, or an unknown commit.
    """
    boards = {folder.absolute() for path in paths for folder in (path, path / "records") if _is_board(folder)}
    beside = [board.parent / name for board in sorted(boards) for name in (SIGNERS, *(s[0] for s in STATEMENTS))]
    history = changes_since([*paths, *beside], against)
    problems = [
        _problem(path, "append-only", finding("file", f"{state}; add a retraction instead of changing it", path.name))
        for path, state in sorted(history.changed.items())
    ]
    files = _files(paths, set(history.changed))
    documents, unreadable = load(files)
    problems += unreadable
    documents = [_on_the_outermost(document, boards) for document in documents]
    for board in sorted(boards):
        problems += _wrong_statements(board, documents) + _wrong_weights(board, documents)
        filed = {d.record.id: (d.path, d.record) for d in documents if d.board == board}
        problems += [_problem(path, "roles", wrong) for path, wrong in wrong_roles(board, filed, history)]
    gone = retracted(paths)
    counting = [d for d in documents if d.record.id not in gone]
    notes = []
    for board in sorted({d.board for d in counting if d.board is not None}):
        root, why = repository_of(board)
        notes += [why] if why else []
        mine = [d for d in counting if root is not None and d.board == board]
        for d in mine:
            found = wrong_origin(root or board, d.record, new=d.path.absolute() in history.touched)
            problems += [_problem(d.path, "origin", wrong) for wrong in found]
    problems += examine(counting, now or datetime.now(UTC))
    judged = {shown(d.path) for d in counting}  # a retracted seed was run, and is not looked at again
    whole = [] if unreadable else [d for d in documents if d.board in boards]
    problems += [problem for problem in odd_seeds(whole) if problem.path in judged]
    if not files and not history.changed:
        raise UsageError(f"no records in {', '.join(map(str, paths))}.")
    order = {shown(path): i for i, path in enumerate(files)}
    problems.sort(key=lambda p: order.get(p.path, -1))
    return Report(len(files), len(documents) - len(counting), history.against, problems, sorted(set(notes)))


def load(files: Iterable[Path]) -> tuple[list[Document], list[Problem]]:
    """The records in some files, and what is wrong with those that hold none."""
    found = [_load(path) for path in files]
    documents = [document for document, _ in found if document is not None]
    return documents, [problem for _, problems in found for problem in problems]


def _load(path: Path) -> tuple[Document | None, list[Problem]]:
    try:
        found = _read(path)
    except RecordError as error:
        wrong = finding("file", f"must be a JSON file of a record: {error}", path.name)
        return None, [_problem(path, "json", wrong)]
    if isinstance(found, Record):
        return Document(path, board_of(path), found), []
    return None, [_problem(path, "schema", wrong) for wrong in found]


def examine(documents: Sequence[Document], now: datetime) -> list[Problem]:
    """What the rules find wrong with records, each alone and all together."""
    problems = []
    for document in documents:
        case = Case.of(document.record, document.place, now)
        for name, rule in RULES.items():
            problems += [_problem(document.path, name, found) for found in islice(rule(case), MOST_FINDINGS)]
    for name, common_rule in COMMON_RULES.items():
        problems += [_problem(document.path, name, found) for document, found in common_rule(documents)]
    return problems


def odd_seeds(documents: Iterable[Document]) -> list[Problem]:
    """Seeds that were not taken as they come; of whole boards, with their retracted records."""
    return [_problem(d.path, "seeds-from-zero", found) for d, found in together.seeds_from_zero(list(documents))]


def _problem(path: Path, rule: str, found: Finding) -> Problem:
    return Problem(shown(path), rule, found.field, found.allowed, found.seen)


def shown(path: Path) -> str:
    """A path for messages: printable, and from here if it lies below."""
    return printable(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path), 300)


def _files(paths: Iterable[Path], known: set[Path]) -> list[Path]:
    """Every file to examine, once; ``known``: files that may be missing, since that is a problem already."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(record_files(path))
        elif path.is_symlink() or os.path.lexists(path):
            found[path] = None
        elif path.absolute() not in known:
            raise UsageError(f"there is no file or folder {shown(path)}.")
    return list(found)


def _read(path: Path) -> Record | list[Finding]:
    if path.is_symlink():
        raise RecordError("it is a symbolic link")
    return decode(read_bytes(path))


def _on_the_outermost(document: Document, boards: Iterable[Path]) -> Document:
    """A folder ``records`` in another one is no board of its own, where a run could be filed a second time."""
    around = [board for board in sorted(boards) if document.path.absolute().is_relative_to(board)]
    return replace(document, board=around[0]) if around else document


def _is_board(folder: Path) -> bool:
    return folder.is_dir() and board_of(folder) == folder.absolute()


STATEMENTS: tuple[tuple[str, str, Callable[[Path], Retraction | Verification]], ...] = (
    (RETRACTIONS, "retraction", read_retraction),
    (VERIFICATIONS, "verification", read_verification),
)
"""Files about records, in folders beside ``records``: the folder, the rule's name, and how they are read."""


def _wrong_statements(board: Path, documents: Sequence[Document]) -> list[Problem]:
    """What is wrong with the retractions and verifications beside a folder ``records``."""
    filed = {d.record.id: d for d in documents if d.board == board}
    problems = []
    for folder, rule, read in STATEMENTS:
        for path in sorted((board.parent / folder).glob("*.json")):
            try:
                statement = read(path)
            except RecordError as error:
                problems.append(_problem(path, rule, finding("file", str(error), path.name)))
                continue
            wrong = _misplaced(statement, filed.get(statement.record))
            problems += [] if wrong is None else [_problem(path, rule, wrong)]
    return problems


def _wrong_weights(board: Path, documents: Sequence[Document]) -> list[Problem]:
    """What is wrong with the networks beside a folder ``records``."""
    folder = board.parent / FOLDER
    if not folder.is_dir():
        return []
    index = folder / INDEX
    try:
        shipped = read_index(folder)
    except CheckpointError as error:
        return [_problem(index, "weights", finding("file", str(error), index.name))]
    filed = {d.place: d.record for d in documents if d.board == board}
    found = []
    for name, one in shipped.items():
        record, wrong = filed.get(one.record), objection(folder / one.file, one)
        if wrong:
            found.append((folder / one.file, finding(name, "must be the file that the index states", wrong)))
        if record is None:
            found.append((index, finding(f"{name}.record", "must be the place of a filed record", one.record)))
        elif record.result.weights_sha256 != one.weights_sha256:
            allowed = f"must be {record.result.weights_sha256}, as its record states"
            found.append((index, finding(f"{name}.weights_sha256", allowed, one.weights_sha256)))
    listed = {one.file for one in shipped.values()} | {INDEX}
    for path in sorted(path for path in folder.iterdir() if path.name not in listed):
        found.append((path, finding("file", "must be in the index", path.name)))
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size > MOST_BYTES:
        found.append((index, finding("file", f"all together must have at most {MOST_BYTES:,} bytes", size)))
    return [_problem(path, "weights", wrong_field) for path, wrong_field in found]


def _misplaced(statement: Retraction | Verification, about: Document | None) -> Finding | None:
    if about is None:
        return finding("record", "must be the id of a filed record", statement.record)
    if about.place != statement.path:
        return finding("path", f"must be {about.place}, where that record lies", statement.path)
    if isinstance(statement, Verification) and statement.kind not in BEYOND and too_few(about.record, statement):
        return finding("images", f"must be at least {FEWEST}, or all, to confirm a record", statement.images)
    return None


CommonFindings = Iterator[tuple[Document, Finding]]


def one_file_a_run(documents: Sequence[Document]) -> CommonFindings:
    """A run is filed once on a board."""
    first: dict[tuple[Path, str], Document] = {}
    for document in documents:
        if document.board is None:
            continue
        other = first.setdefault((document.board, document.record.run.key()), document)
        if other is not document:
            yield (
                document,
                finding("run", f"must be filed once; {shown(other.path)} is the same run", document.record.id),
            )


def weights_of_one_seed(documents: Sequence[Document]) -> CommonFindings:
    """Networks of different seeds have different weights."""
    first: dict[str, Document] = {}
    for document in documents:
        record = document.record
        other = first.setdefault(record.result.weights_sha256, document)
        if other.record.run.seed != record.run.seed:
            allowed = f"must differ from {shown(other.path)}, a run of seed {other.record.run.seed}"
            yield document, finding("result.weights_sha256", allowed, record.result.weights_sha256)


def one_split(documents: Sequence[Document]) -> CommonFindings:
    """Runs on the same terms have the same images; most of them decide which, where nothing else does."""
    groups: dict[tuple[object, ...], list[Document]] = defaultdict(list)
    for document in documents:
        run = document.record.run
        limits = (run.limit_train, run.limit_test, run.holdout)
        groups[
            run.protocol, run.protocol_digest, run.dataset, run.source_sha256, run.profile, run.asked_ratio, *limits
        ].append(document)
    for members in groups.values():
        for name in ("train_index_sha256", "test_index_sha256"):
            digests = Counter(getattr(d.record.run, name) for d in members)
            usual, count = digests.most_common(1)[0]
            for document in members:
                seen = getattr(document.record.run, name)
                if seen != usual:
                    allowed = f"must be {usual}, as in {count} other records of this split"
                    yield document, finding(f"run.{name}", allowed, seen)


COMMON_RULES: dict[str, Callable[[Sequence[Document]], CommonFindings]] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        one_file_a_run,
        weights_of_one_seed,
        one_split,
        together.equal_bits,
        together.one_name_a_split,
    )
}
"""Rules about several records, by name."""
