"""Reading and writing records."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from pydantic import ValidationError

from ltrobust_bench.errors import RecordError
from ltrobust_bench.files import write_text
from ltrobust_bench.parallel import each
from ltrobust_bench.records.retract import FOLDER as RETRACTIONS
from ltrobust_bench.records.retract import retractions_beside
from ltrobust_bench.records.schema import SCHEMA_VERSION, Record, condense
from ltrobust_bench.records.strict import LONGEST_INTEGER, Finding, finding, findings_of, parse_json, read_bytes
from ltrobust_bench.records.verify import FOLDER as VERIFICATIONS
from ltrobust_bench.records.verify import judged
from ltrobust_bench.terms import printable


def dumps(record: Record) -> str:
    """A record as its file holds it: indented JSON, fields in the schema's order, one line at the end."""
    return record.model_dump_json(indent=1) + "\n"


def write_record(record: Record, path: Path) -> None:
    """Write a record atomically."""
    write_text(path, dumps(record))


def decode(path: Path) -> Record | list[Finding]:
    """The record in a file, or what is wrong with its fields.

    Raises:
        RecordError: if it is no readable JSON file; the message does not name the file.
    """
    data = read_bytes(path)
    record = _as_written(data)
    if record is not None:
        return record
    raw = parse_json(data)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        return [finding("schema_version", f"must be {SCHEMA_VERSION}, the only one this version can read", version)]
    try:
        return Record.model_validate(raw)
    except ValidationError as error:
        return findings_of(error)


def _as_written(data: bytes) -> Record | None:
    """The record in a file that holds, letter by letter, what :func:`dumps` makes of its fields, or None. Nothing that
    :func:`parse_json` looks for can hide in such a file, and thousands are read for a leaderboard."""
    try:
        record = Record.model_validate_json(data)
    except ValidationError:
        return None
    # A field that was added to the schema later stands at its default, and not in the file.
    same = f"{record.model_dump_json(indent=1, exclude_unset=True)}\n".encode() == data
    plain = data.isascii() and b"\\" not in data and b"\x7f" not in data
    if not (same and plain):
        return None
    # Most of a file is its result, which holds no numbers.
    digits = (data[: data.find(b'\n "result"')] + data[data.rfind(b'\n "cost"') :]).translate(_DIGITS_AS_0)
    return None if any(start in digits for start in _LONG_INTEGERS) else record


_DIGITS_AS_0 = bytes.maketrans(b"123456789", b"000000000")
_LONG_INTEGERS = [sign + b"0" * (LONGEST_INTEGER + 1) for sign in (b" ", b"-")]


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        RecordError: naming the file, the field and what is wrong.
    """
    try:
        found = decode(path)
    except RecordError as error:
        raise RecordError(f"{printable(str(path), 300)} is no record: {error}.") from None
    if isinstance(found, Record):
        return found
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    raise RecordError(f"{printable(str(path), 300)} is no valid record: {found[0]}{more}")


def record_files(folder: Path) -> Iterator[Path]:
    """What below ``folder`` should be a record: everything called ``*.json``, except retractions and verifications,
    and what lies in a run folder beside its ``record.json``. Folders that cannot be listed come last: nobody knows what
    is missing with them."""
    closed: list[Path] = []
    for name, below, files in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        below.sort()
        place = Path(name)
        if place.name in (RETRACTIONS, VERIFICATIONS) and "records" not in place.relative_to(folder.parent).parts:
            continue
        in_run = any((parent / "plan.json").exists() for parent in (place, *place.parents[:2]))
        for file in sorted([*files, *below]):
            # A plan.json that somebody put among filed records must not hide them.
            if file.endswith(".json") and (not in_run or file == "record.json" or FILED.search(file)):
                yield place / file
    yield from (path for path in closed if path.exists())


FILED = re.compile(r"-s[0-9]+-[0-9a-f]{8}\.json$")
"""How the name of a filed record ends."""


def find_records(folders: Iterable[Path], results: Iterable[Path] = ()) -> tuple[list[Record], list[str]]:
    """All records below ``folders`` (or the files themselves), and a message for each file that is none.

    The same run found twice (a run folder and its filed copy) counts once. Retracted records are left out; where there
    is a folder for verifications, records know what others found.

    Args:
        results: folders whose retractions and verifications hold besides those that lie beside the records.
    """
    folders = list(folders)
    retracted, problems = retractions_beside([*folders, *results])
    found: dict[str, Record] = {}
    paths = [path for folder in folders for path in ([folder] if folder.is_file() else record_files(folder))]
    chunks = [paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE)]
    for record in chain.from_iterable(each(_records_or_messages, chunks, len(paths) * SECONDS)):
        if isinstance(record, str):
            problems.append(record)
        elif record.id not in retracted:
            found.setdefault(record.id, record)
    records, unreadable = judged(list(found.values()), [*folders, *results])
    return records, problems + unreadable


AT_ONCE = 100
"""Files that a process reads together."""
SECONDS = 5e-4
"""About what reading a record takes, and nearly as much what is done with it."""


def _records_or_messages(paths: Sequence[Path]) -> list[Record | str]:
    found: list[Record | str] = []
    for path in paths:
        try:
            found.append(read_record(path))
        except RecordError as error:
            found.append(str(error))
    condense([record for record in found if isinstance(record, Record)])
    return found
