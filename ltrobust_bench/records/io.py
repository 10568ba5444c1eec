"""Reading and writing records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from ltrobust_bench.errors import RecordError
from ltrobust_bench.files import write_text
from ltrobust_bench.protocol.load import printable
from ltrobust_bench.records.retract import FOLDER as RETRACTIONS
from ltrobust_bench.records.retract import retractions_beside
from ltrobust_bench.records.schema import SCHEMA_VERSION, Record
from ltrobust_bench.records.strict import Finding, finding, findings_of, read_json
from ltrobust_bench.records.verify import FOLDER as VERIFICATIONS
from ltrobust_bench.records.verify import judged


def dumps(record: Record) -> str:
    """A record as its file holds it: indented JSON, fields in the schema's order, one line at the end."""
    return json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def write_record(record: Record, path: Path) -> None:
    """Write a record atomically."""
    write_text(path, dumps(record))


def decode(path: Path) -> Record | list[Finding]:
    """The record in a file, or what is wrong with its fields.

    Raises:
        RecordError: if it is no readable JSON file; the message does not name the file.
    """
    raw = read_json(path)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        return [finding("schema_version", f"must be {SCHEMA_VERSION}, the only one this version can read", version)]
    try:
        return Record.model_validate(raw)
    except ValidationError as error:
        return findings_of(error)


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        RecordError: naming the file, the field and what is wrong.
    """
    shown = printable(str(path), 300)
    try:
        found = decode(path)
    except RecordError as error:
        raise RecordError(f"{shown} is no record: {error}.") from None
    if isinstance(found, Record):
        return found
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    raise RecordError(f"{shown} is no valid record: {found[0]}{more}")


def record_files(folder: Path) -> Iterator[Path]:
    """The files below ``folder`` that should be records: every JSON file, except retractions and verifications, and
    what lies in a run folder beside its ``record.json``."""
    for path in sorted(folder.rglob("*.json")):
        run_folder = any((parent / "plan.json").exists() for parent in path.parents[:3])
        if (path.name == "record.json" or not run_folder) and path.parent.name not in (RETRACTIONS, VERIFICATIONS):
            yield path


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
    for folder in folders:
        for path in [folder] if folder.is_file() else record_files(folder):
            try:
                record = read_record(path)
            except RecordError as error:
                problems.append(str(error))
                continue
            if record.id not in retracted:
                found.setdefault(record.id, record)
    records, unreadable = judged(list(found.values()), [*folders, *results])
    return records, problems + unreadable
