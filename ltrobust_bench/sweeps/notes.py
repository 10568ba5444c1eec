"""What a worker leaves beside its results about a job in hand: who works on it, how far it is, or why it failed.

One small file per job in the run folder, ``train.json`` or ``evaluate.json``, rewritten at bounded intervals while
there is work, and removed by success. It says nothing about results: what is done is told by the results themselves.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal

from pydantic import Field

from ltrobust_bench.errors import UsageError
from ltrobust_bench.executors.base import Job, Kind, Outcome
from ltrobust_bench.files import write_text
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.terms import Strict

BEAT, SOON = 10.0, 1.0
"""Seconds between two beats of a worker; and before a new piece of work is told between them."""
SILENCE = 90.0
"""A worker on another machine that has not written for so many seconds is gone."""
HOST = socket.gethostname()


class Note(Strict):
    """The state of a job in hand.

    Attributes:
        state: ``running``, ``stopped`` in order, or ``failed``.
        host, pid: who works on it, or did.
        time: of this writing, seconds since 1970.
        sessions: times that work on it began.
        what, done, total: the piece of work, and how much of it is there.
        reason: one line, if it failed.
    """

    state: Literal["running", "stopped", "failed"]
    host: str
    pid: int
    time: float
    sessions: int = Field(ge=1)
    what: str = ""
    done: int = 0
    total: int = 0
    reason: str = ""

    @property
    def alive(self) -> bool:
        """Whether the process is still there: on this machine it is looked for, and it must have written lately."""
        if self.state != "running" or time.time() - self.time > SILENCE:
            return False
        return self.host != HOST or _exists(self.pid)

    @property
    def mine(self) -> bool:
        """Whether this process wrote it."""
        return (self.host, self.pid) == (HOST, os.getpid())

    @property
    def share(self) -> float:
        """How much of the piece of work is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0


def _exists(pid: int) -> bool:
    if os.name == "nt":  # asking by a signal would interrupt it there; its silence will tell
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def note_path(folder: Path, kind: Kind) -> Path:
    """Where the note of a job lies."""
    return folder / f"{kind}.json"


def read_note(folder: Path, kind: Kind) -> Note | None:
    """The note of a job; None if there is none, or none that can be read."""
    try:
        return Note.model_validate_json(read_bytes(note_path(folder, kind)))
    except (OSError, ValueError):
        return None


def why(outcome: Outcome) -> str:
    """Why a job ended as it did, in one line: what the executor knows, or what the worker left."""
    note = read_note(outcome.job.folder, outcome.job.kind)
    return outcome.reason or (note.reason if note else "")


class Heartbeat(Silent):
    """Progress that beats while its block runs: a thread writes the note, so that a long step does not look like a dead
    worker.

    Args:
        job: the job in hand.
        trouble: is told if the note cannot be written.
    """

    def __init__(self, job: Job, trouble: Progress) -> None:
        self.path, self.trouble = note_path(job.folder, job.kind), trouble
        earlier = read_note(job.folder, job.kind)
        self.sessions = earlier.sessions + 1 if earlier else 1
        self.what, self.total, self.done = "", 0, 0
        self.written = 0.0
        self.over = threading.Event()
        self.beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self.write("running")
        self.beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.beating.join()

    def start(self, what: str, total: int, done: int = 0) -> None:
        """See :class:`Progress`."""
        self.what, self.total, self.done = what, total, done
        if time.monotonic() - self.written > SOON:
            self.write("running")

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        """See :class:`Progress`."""
        self.done += units

    def write(self, state: Literal["running", "stopped", "failed"], reason: str = "") -> None:
        """Write the note; a disk that is full at this moment must not end the work itself."""
        self.written = time.monotonic()
        note = Note(
            state=state, host=HOST, pid=os.getpid(), time=time.time(), sessions=self.sessions,
            what=self.what, done=self.done, total=self.total, reason=reason,
        )  # fmt: skip
        try:
            write_text(self.path, note.model_dump_json() + "\n")
        except (OSError, UsageError):
            self.trouble.note(f"cannot write {self.path}")

    def _beat(self) -> None:
        while not self.over.wait(BEAT):
            self.write("running")
