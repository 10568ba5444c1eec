"""Reading and writing records."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from ltrobust_bench.errors import RecordError
from ltrobust_bench.files import write_text
from ltrobust_bench.records.cache import recall, remember
from ltrobust_bench.records.retract import RETRACTIONS
from ltrobust_bench.records.schema import SCHEMA_VERSION, SEEN, Record, Tally
from ltrobust_bench.records.strict import Finding, finding, findings_of, parse_json, read_bytes
from ltrobust_bench.records.trust import judged
from ltrobust_bench.records.verify import VERIFICATIONS
from ltrobust_bench.records.weights import FOLDER as WEIGHTS
from ltrobust_bench.terms import printable


def dumps(record: Record) -> str:
    """A record as its file holds it: indented JSON, fields in the schema's order, one line at the end."""
    return record.model_dump_json(indent=1) + "\n"


def write_record(record: Record, path: Path) -> None:
    """Write a record atomically."""
    write_text(path, dumps(record))


def decode(data: bytes) -> Record | list[Finding]:
    """The record that a file holds, or what is wrong with its fields.

    Raises:
        RecordError: if it is no JSON; the message does not name the file.
    """
    raw = parse_json(data)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        return [finding("schema_version", f"must be {SCHEMA_VERSION}, the only one this version can read", version)]
    try:
        return Record.model_validate(raw)
    except ValidationError as error:
        return findings_of(error)


def read_record(path: Path) -> Record:
    """The record in a file, or in a run folder.

    Raises:
        RecordError: naming the file, the field and what is wrong.
    """
    return _read(path / "record.json" if path.is_dir() else path, {})[1]


def _read(path: Path, known: Mapping[str, Tally]) -> tuple[str, Record]:
    """The SHA-256 (hex) of a file, and its record; ``known``: tallies of files that were valid records before."""
    try:
        data = read_bytes(path)
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in known:
            return sha256, Record.model_validate_json(data, context=SEEN).recalled(known[sha256])
        found = decode(data)
    except RecordError as error:
        raise RecordError(f"{printable(str(path), 300)} is no record: {error}.") from None
    if isinstance(found, Record):
        return sha256, found
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    raise RecordError(f"{printable(str(path), 300)} is no valid record: {found[0]}{more}")


def record_files(folder: Path) -> Iterator[Path]:
    """What below ``folder`` should be a record: everything called ``*.json``, except retractions, verifications, the
    index of weights, and what lies in a run folder beside its ``record.json``. Folders that cannot be listed come last:
    nobody knows what is missing with them."""
    closed: list[Path] = []
    for name, below, files in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        below.sort()
        place = Path(name)
        if (
            place.name in (RETRACTIONS, VERIFICATIONS, WEIGHTS)
            and "records" not in place.relative_to(folder.parent).parts
        ):
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

    The same run found twice (a run folder and its filed copy) counts once. Retracted records are left out; where others
    said something, or a list of keys makes a board a public one, records know what was said.

    Args:
        results: folders whose retractions and verifications hold besides those that lie beside the records.
    """
    folders = list(folders)
    problems: list[str] = []
    found: dict[str, Record] = {}
    for folder in folders:
        records, wrong = _records_in(folder)
        problems += wrong
        for record in records:
            found.setdefault(record.id, record)
    records, unreadable = judged(list(found.values()), [*folders, *results])
    return records, problems + unreadable


def _records_in(folder: Path) -> tuple[list[Record], list[str]]:
    """The records below a folder (or in a file), and a message for each file that is none."""
    alone = folder.is_file()
    known = {} if alone else recall(folder)
    tallies: dict[str, Tally] = {}
    records, problems = [], []
    for path in [folder] if alone else record_files(folder):
        try:
            sha256, record = _read(path, known)
        except RecordError as error:
            problems.append(str(error))
        else:
            records.append(record)
            tallies[sha256] = record.tally
    if not alone and tallies.keys() != known.keys():
        remember(folder, tallies)
    return records, problems
