"""Reading and writing records."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from ltrobust_bench.errors import LTBenchError, RecordError
from ltrobust_bench.files import write_text
from ltrobust_bench.protocol.load import first_problem
from ltrobust_bench.records.schema import SCHEMA_VERSION, Record


def dumps(record: Record) -> str:
    """A record as its file holds it: indented JSON, fields in the schema's order, one line at the end."""
    return json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def write_record(record: Record, path: Path) -> None:
    """Write a record atomically."""
    write_text(path, dumps(record))


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        RecordError: naming the file, the field and what is wrong.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"no record at {path}.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"{path} is no record: {str(error).splitlines()[0]}") from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise RecordError(
            f"{path} is no record this version can read: schema_version is {version!r}, known: {SCHEMA_VERSION}."
        )
    try:
        return Record.model_validate(raw)
    except ValidationError as error:
        raise RecordError(f"{path} is no valid record: {first_problem(error)}") from None
    except LTBenchError as error:
        raise RecordError(f"{path} is no valid record: {error}") from None


def find_records(folders: Iterable[Path]) -> tuple[list[Record], list[str]]:
    """All records below ``folders`` (or the files themselves), and a message for each file that is none.

    The same run found twice (a run folder and its filed copy) counts once.
    """
    found: dict[str, Record] = {}
    problems: list[str] = []
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(folder.rglob("*.json"))
        for path in files:
            if folder.is_dir() and not _looks_like_record(path):
                continue
            try:
                record = read_record(path)
            except RecordError as error:
                problems.append(str(error))
                continue
            found.setdefault(record.id, record)
    return list(found.values()), problems


def _looks_like_record(path: Path) -> bool:
    """Below a records folder every JSON file must be a record; in a run folder only ``record.json`` is one."""
    run_folder = (path.parent / "plan.json").exists() or any((p / "plan.json").exists() for p in path.parents[1:3])
    return path.name == "record.json" or not run_folder
