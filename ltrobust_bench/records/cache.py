"""What boards ask of records, remembered from one board to the next under the SHA-256 of each file.

Each folder of records has one file in the user's cache folder (``LTBENCH_CACHE``, else where the system keeps caches):
a line that says which code wrote it and what its text hashes to, then a JSON object from the SHA-256 of each record's
file to its :class:`~ltrobust_bench.records.schema.Tally`. It may be deleted at any moment. If it is damaged, or other
code wrote it, it counts as none; if it cannot be written, nothing is remembered; if two processes write at once, one of
them is remembered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.files import write_text
from ltrobust_bench.records.schema import Tally

VARIABLE = "LTBENCH_CACHE"


def recall(folder: Path) -> dict[str, Tally]:
    """What is remembered of the records below a folder, by the SHA-256 (hex) of their files."""
    try:
        head, _, text = _place(folder).read_text(encoding="ascii").partition("\n")
        return {sha256: _tally(*kept) for sha256, kept in json.loads(text).items()} if head == _head(text) else {}
    except (OSError, ValueError):
        return {}


def remember(folder: Path, tallies: Mapping[str, Tally]) -> None:
    """Remember this of the records below a folder, and nothing else."""
    text = json.dumps({sha256: _kept(tally) for sha256, tally in tallies.items()})
    with suppress(OSError, LTBenchError):
        write_text(_place(folder), f"{_head(text)}\n{text}")


def cache_folder() -> Path:
    """The user's cache folder."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else user_cache_path("ltrobust-bench", appauthor=False)


def _place(folder: Path) -> Path:
    return cache_folder() / f"records-{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]}.json"


def _head(text: str) -> str:
    return f"{_code()} {hashlib.sha256(text.encode()).hexdigest()}"


@cache
def _code() -> str:
    """SHA-256 (hex) of the package's code: what other code found out does not count, released or not."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _kept(tally: Tally) -> list[Any]:
    arrays = (base64.b64encode(array.tobytes()).decode() for array in (tally.correct, tally.union))
    return [tally.id, tally.entry_key, tally.by_square, len(tally.correct), *arrays]


def _tally(identity: str, entry_key: str, by_square: int, rows: int, correct: str, union: str) -> Tally:
    return Tally(
        id=identity,
        entry_key=entry_key,
        correct=np.frombuffer(base64.b64decode(correct), dtype=np.uint32).reshape(rows, -1),
        union=np.frombuffer(base64.b64decode(union), dtype=np.uint8),
        by_square=by_square,
    )
