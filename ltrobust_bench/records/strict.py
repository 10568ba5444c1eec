"""Reading strangers' JSON files: whatever is in them, it ends with a value or with words about what is wrong."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ltrobust_bench import reading
from ltrobust_bench.errors import RecordError
from ltrobust_bench.terms import printable

LARGEST = 1_000_000
"""Bytes of a file; a record of 300,000 test images has fewer."""
LONGEST_INTEGER = 18
MOST_FINDINGS = 20
"""Of one file; a file with more is not read field by field anyway."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with one field.

    Attributes:
        field: dotted name; ``file`` for the file as a whole.
        allowed: what would be right, in words.
        seen: what is there instead, printable and short.
    """

    field: str
    allowed: str
    seen: str

    def __str__(self) -> str:
        return f"{self.field}: {self.allowed} (got {self.seen})"


def finding(field: str, allowed: str, value: Any) -> Finding:
    """A finding about ``value``; whatever the three hold, their text prints on one line."""
    seen = type(value).__name__ if isinstance(value, dict) else repr(value)
    return Finding(printable(field), printable(allowed, 400), printable(seen))


def findings_of(error: ValidationError) -> list[Finding]:
    """One finding per field that a pydantic model refused.

    The models' own validators name the field that they mean: ``"result.digest: is not the digest of the bits"``.
    """
    found = []
    for problem in error.errors(include_url=False, include_context=False)[:MOST_FINDINGS]:
        path, allowed, seen = [str(part) for part in problem["loc"]], problem["msg"], problem["input"]
        if problem["type"] == "missing":
            seen = "nothing"
        elif problem["type"] == "value_error":
            field, colon, rest = allowed.removeprefix("Value error, ").partition(": ")
            inner, allowed = (field.split("."), rest) if colon else ([], field)
            for part in inner:
                seen = seen.get(part) if isinstance(seen, dict) else seen
            path += inner
        found.append(finding(".".join(path) or "file", allowed, seen))
    return found


def read_json(path: Path) -> Any:
    """The JSON in a file: :func:`read_bytes` and :func:`parse_json`."""
    return parse_json(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """What a file holds.

    Raises:
        RecordError: if it is no plain file, cannot be read, or is too large; it does not name the file.
    """
    try:
        return reading.read_bytes(path, LARGEST)
    except FileNotFoundError:
        raise RecordError("there is no such file") from None
    except IsADirectoryError:
        readable = os.access(path, os.R_OK | os.X_OK)
        raise RecordError("it is no plain file" if readable else "it is a folder that cannot be read") from None
    except OSError as error:
        raise RecordError(error.strerror or str(error)) from None
    except ValueError as error:
        raise RecordError(str(error)) from None


def parse_json(data: bytes) -> Any:
    """JSON without what strangers' files play tricks with: keys that stand twice, numbers that are not finite or have
    more digits than any count, characters that do not print.

    Raises:
        RecordError: saying what was found instead.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_float,
        )
    except RecursionError:
        raise RecordError("it is nested too deeply") from None
    except ValueError as error:  # no UTF-8, or no JSON
        raise RecordError(printable(str(error), 200)) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RecordError(f"key {printable(repr(twice))} stands twice in one object")
    for key, value in pairs:
        for text in (key, *(value if isinstance(value, list) else (value,))):
            if isinstance(text, str) and not text.isprintable():
                raise RecordError(f"{printable(key)} holds characters that do not print: {printable(repr(text))}")
    return built


def _integer(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise RecordError(f"it holds a number of {len(text)} digits, {printable(text, 20)}")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RecordError(f"{printable(text, 20)} is no finite number")
    return value
