"""A record is never edited or deleted: a retraction, a file beside the records, says that one no longer counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from ltrobust_bench.errors import RecordError, UnknownNameError, UsageError
from ltrobust_bench.files import write_text
from ltrobust_bench.records.strict import finding, findings_of, read_json
from ltrobust_bench.terms import Strict, printable

RETRACTIONS = "retractions"
"""Beside ``records``; holds ``<record's id>.json``."""


class Retraction(Strict):
    """Why a record no longer counts."""

    record: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")] = Field(description="id of the record")
    path: str = Field(max_length=400, description="its place below ``records``")
    reason: str = Field(min_length=1, max_length=500)
    date: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="UTC, ISO 8601")

    @field_validator("reason")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isprintable() or not value.strip():
            raise ValueError("must be one line of text")
        return value

    @field_validator("date")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        date.fromisoformat(value)
        return value


def board_of(path: Path) -> Path | None:
    """The folder ``records`` that a path lies in or is, whose retractions hold for it; None: it lies in none."""
    whole = path.absolute()
    return next((folder for folder in (whole, *whole.parents) if folder.name == "records"), None)


def folders_beside(places: Iterable[Path], name: str) -> set[Path]:
    """The folders of files about records, called ``name``, that hold for some places: those beside their folders
    ``records``, never one inside; absolute, so that none is read twice.

    Args:
        places: folders ``records``, what lies in them, or the folder above.
    """
    places = list(places)
    boards = {board for board in map(board_of, places) if board is not None}
    above = {place.absolute() for place in places if place.name != "records"}
    return {folder / name for folder in above | {board.parent for board in boards}}


def read_retraction(path: Path) -> Retraction:
    """The retraction in a file.

    Raises:
        RecordError: naming the file, the field and what is wrong.
    """
    name = printable(str(path), 300)
    try:
        retraction = Retraction.model_validate(read_json(path))
    except RecordError as error:
        raise RecordError(f"{name} is no retraction: {error}") from None
    except ValidationError as error:
        raise RecordError(f"{name} is no retraction: {findings_of(error)[0]}") from None
    if path.name != f"{retraction.record}.json":
        wrong = finding("record", f"must be {path.stem}, as the file is called", retraction.record)
        raise RecordError(f"{name} is no retraction: {wrong}")
    return retraction


def retract(record: str, reason: str, results_dir: Path, records: Mapping[str, str]) -> Path:
    """Write the retraction of a record; returns its file.

    Args:
        record: its id.
        reason: one line for whoever meets the number elsewhere.
        results_dir: the folder with ``records`` and ``retractions``.
        records: the places of the records there, by id.

    Raises:
        UsageError: for an id that no record has, one that is retracted already, or a reason of no text.
    """
    if record not in records:
        raise UnknownNameError("record", record, records, "The column `records` of leaderboard.csv has their ids.")
    path = results_dir / RETRACTIONS / f"{record}.json"
    if path.exists():
        raise UsageError(f"{record} is retracted already: {path}.")
    today = datetime.now(UTC).date().isoformat()
    try:
        retraction = Retraction(record=record, path=records[record], reason=reason.strip(), date=today)
    except ValidationError as error:
        raise UsageError(f"--{findings_of(error)[0]}.") from None
    write_text(path, retraction.model_dump_json(indent=1) + "\n")
    return path
