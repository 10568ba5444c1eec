"""What an executor is given, a job, and what it must do with it.

A job is done by a process of its own, ``job.command()``, wherever that runs: it reads data and run folder there, writes
its log and its progress below the run folder, and tells by its exit code how it ended. So an executor starts commands
and collects exit codes, and knows nothing of training.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ltrobust_bench.errors import UsageError
from ltrobust_bench.interrupt import REQUEUE
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.terms import Strict

AGAIN = REQUEUE
"""Exit code of a job that was asked to stop (or whose run folder another process holds): it wants to be queued again,
and goes on where it stopped."""
End = Literal["done", "again", "failed", "lost"]
Kind = Literal["train", "evaluate"]
TETHER = "LTBENCH_TETHER"
"""Set in the environment of a job whose standard input is a pipe from who launched it."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Place(Strict):
    """Where jobs find and leave things. Paths mean the same on every machine that works: they are absolute.

    Attributes:
        runs_dir: where run folders live.
        results_dir: where finished records are filed; None: they stay in their run folders.
        data_dir: folder or archive of the data set; None: the usual place.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of one job; None: torch's choice.
        race: rank of the board that a run must be able to reach, or it is not attacked in full; None: no race.
    """

    runs_dir: Path
    results_dir: Path | None = None
    data_dir: Path | None = None
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    race: int | None = Field(default=None, ge=1)


class Job(Strict):
    """One piece of work: a training, or the evaluation of a finished one. Frozen, picklable, without pixels.

    Attributes:
        kind: what is done.
        request: what was asked for.
        level: 0: that run itself; 1: the run that it builds on, which may have less than its card's budget and so has
            no request of its own; and so on.
        run: name of the run folder; it ends with the start of the run key.
        record: place of its record below ``results/records``.
        place: where things are.
    """

    kind: Kind
    request: Request
    level: int = Field(default=0, ge=0)
    run: str
    record: str
    place: Place

    @classmethod
    def of(cls, kind: Kind, run: RunSection, request: Request, level: int, place: Place) -> Job:
        """A job of a run that is planned already."""
        return cls(
            kind=kind, request=request, level=level, run=run.folder_name(), record=run.record_path(), place=place
        )

    def to_plan(self) -> Plan:
        """Its plan, made where it is done.

        Raises:
            UsageError: if that is another run there, because data, cards or protocols differ.
        """
        plan = self.request.to_plan(self.place.data_dir)
        for _ in range(self.level):
            assert plan.base is not None
            plan = plan.base
        if plan.run.folder_name() != self.run:
            raise UsageError(
                f"on this machine the job is another run, {plan.run.folder_name()}: its cards, protocols or data are "
                f"not those of the machine that planned {self.run}."
            )
        return plan

    @property
    def id(self) -> str:
        """Its name, unique in a sweep: ``at-digits-lt-ir20-small-s0-1a2b3c4d.train``."""
        return f"{self.run}.{self.kind}"

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.place.runs_dir / self.run

    @property
    def log(self) -> Path:
        """What it prints, session after session."""
        return self.folder / f"{self.kind}.log"

    def command(self) -> list[str]:
        """What to type to have it done: 0 done, 1 or 2 a problem, ``AGAIN`` stopped and to be queued again."""
        return [sys.executable, "-m", "ltrobust_bench.verbs.work", self.model_dump_json()]

    def environment(self) -> dict[str, str]:
        """Variables that keep the number libraries to the job's threads; they are read before Python code is."""
        return {} if self.place.threads is None else dict.fromkeys(_THREADS, str(self.place.threads))


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: the job.
        code: exit code of its process; negative: the signal that killed it; None: nobody knows, its machine is gone.
        reason: one line, where there is something to say.
    """

    job: Job
    code: int | None
    reason: str = ""

    @property
    def end(self) -> End:
        """``done``; ``again``: stopped in order; ``failed``: it said why; ``lost``: killed, or its machine is gone."""
        if self.code is None or self.code < 0 or self.code in (128 + 9, 128 + 15):  # as a shell reports signals
            return "lost"
        return {0: "done", AGAIN: "again", 130: "again"}.get(self.code, "failed")  # type: ignore[return-value]


class Options(Strict):
    """What is typed for an executor; each kind adds its own fields. Names become options of ``ltbench sweep``:
    ``gpus_per_job`` is ``--gpus-per-job``."""

    workers: int = Field(default=1, ge=1, description="Jobs at a time.")
    threads_per_worker: int | None = Field(
        default=None, ge=1, description="CPU threads of a job (default: local: the cores divided among the workers)."
    )
    gpus_per_job: float | None = Field(
        default=None,
        ge=0,
        description="CUDA devices per job; 0.5: two jobs share one (default: 1 if there are any).",
    )

    @property
    def threads(self) -> int | None:
        """CPU threads of a job; None: torch's choice."""
        return self.threads_per_worker


class Executor(ABC):
    """Does jobs. Nothing here blocks longer than a moment; the scheduler calls it from one thread.

    A kind of executor is a file of this folder with one subclass, and is named after the file. Packages that not
    everybody has are imported inside :meth:`__init__`, which raises a UsageError with the line to type if they are
    missing.
    """

    help: ClassVar[str]
    takes: ClassVar[type[Options]] = Options

    @abstractmethod
    def __init__(self, options: Options) -> None:
        """Get ready.

        Raises:
            UsageError: if that can not be.
        """

    @abstractmethod
    def free(self) -> int:
        """How many more jobs it takes now."""

    @abstractmethod
    def start(self, job: Job) -> None:
        """Begin a job; called at most ``free()`` times in a row."""

    @abstractmethod
    def finished(self) -> Sequence[Outcome]:
        """The jobs that ended since the last call, each once. A job that is lost is reported, not done again: what is
        done again is decided by the scheduler."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all running jobs to keep what they have and end (SIGTERM); :meth:`finished` then reports them."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing running: what still runs is killed. Called once, at the end."""


def launch(
    job: Job, variables: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a job's process on this machine; what it prints is added to its log.

    It has a session of its own, so that Ctrl-C reaches who started it and not the job: that one asks it to stop in
    order (SIGTERM).

    Args:
        variables: of its environment, beside this process's and the pinned threads.
        stdin: see :class:`subprocess.Popen`.

    Raises:
        OSError: if its folder or log can not be written, or there is no room for another process.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            job.command(),
            env={**os.environ, **job.environment(), **(variables or {})},
            stdin=stdin,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def launch_there(job: Job) -> subprocess.Popen[bytes]:
    """:func:`launch` on another machine than the scheduler's, by a process of the cluster's engine; the job is asked to
    stop when that process is gone, however it went.

    Raises:
        UsageError: if the run folder, which the executor has made before, is not here.
    """
    if not job.folder.is_dir():
        raise UsageError(
            f"{job.place.runs_dir} on {socket.gethostname()} is not the folder of the sweep: give --runs-dir a folder "
            "on storage that all machines share."
        )
    return launch(job, {TETHER: "1"}, stdin=subprocess.PIPE)


def obey_tether() -> None:
    """In a job's process: stop in order (SIGTERM) when who launched it is gone, if that is what it is to do."""
    if TETHER in os.environ:
        threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    # Nothing is ever written to it: it ends with the other end's process. The descriptor itself is read: a buffered
    # file that a thread holds crashes Python when it exits.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
