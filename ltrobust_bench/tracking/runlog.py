"""The log of a run, ``log.jsonl`` in its run folder: what happened in all its sessions, one JSON object a line.

Each line has ``time`` (UTC), ``session`` (one of training or attacking), ``event``, and the event's
fields (:mod:`ltrobust_bench.progress`)::

    {"time": "2026-01-31T12:00:00.000Z", "session": "5f0c9a1e", "event": "epoch", "epoch": 1, "loss": 1.9, ...}

Lines are only added, each by one write, so that a process that is killed leaves at most one half line, which readers
skip.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ltrobust_bench.progress import Event, Failed, Noted, Progress, Several, Silent
from ltrobust_bench.reading import read_bytes

NAME = "log.jsonl"


class RunLog(Silent):
    """Writes notes and events into a run's log.

    Raises:
        OSError: naming the file, if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.session = path, os.urandom(4).hex()

    def note(self, text: str) -> None:
        """A line for people is an event here."""
        self.tell(Noted(text))

    def tell(self, event: Event) -> None:
        """Add a line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {"time": now, "session": self.session, "event": event.name, **event.values()}
        # JSON has no word for what is not finite: null.
        plain = json.loads(json.dumps(fields), parse_constant=lambda _: None)
        line = json.dumps(plain, ensure_ascii=False).encode() + b"\n"
        try:
            with self.path.open("ab+", buffering=0) as log:
                if log.tell():
                    log.seek(-1, os.SEEK_END)
                    line = (b"" if log.read(1) == b"\n" else b"\n") + line  # a killed session's half line ends here
                if log.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None


@contextmanager
def logged(folder: Path | None, progress: Progress) -> Iterator[Progress]:
    """Have what is reported in the block also written into a run's log, and the error that ends it.

    Args:
        folder: the run folder, which the caller holds alone; None: somebody else writes its log.
        progress: who follows otherwise.
    """
    if folder is None:
        yield progress
        return
    log = RunLog(folder / NAME)
    try:
        yield Several([progress, log])
    except BaseException as error:
        with suppress(OSError):
            log.tell(Failed(reason(error)))
        raise


def reason(error: BaseException) -> str:
    """An error as one line without the addresses of objects."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text = " ".join(str(error).split())
    return re.sub(r" at 0x[0-9a-f]+", "", text) or type(error).__name__


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, in their order; without half lines, and none if there is no log.

    Args:
        folder: the run folder.

    Example: ``[line["loss"] for line in read_log(folder) if line["event"] == "epoch"]``
    """
    try:
        text = read_bytes(folder / NAME, None).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = []
    for line in text.split("\n"):
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and "event" in found:
                lines.append(found)
    return lines
