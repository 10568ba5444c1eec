"""The states of jobs, as they are told by what lies on the disk: right after any crash, whoever did the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock, Timeout

from ltrobust_bench.executors.base import Job, Kind
from ltrobust_bench.files import is_there
from ltrobust_bench.sweeps.bounds import Bound, read_bound
from ltrobust_bench.sweeps.jobs import Piece, left_of
from ltrobust_bench.sweeps.notes import Note, read_note

State = Literal["running", "failed", "lost", "stopped", "ready", "waiting", "done"]
TRAIN: Kind = "train"
EVALUATE: Kind = "evaluate"
STATES: tuple[State, ...] = get_args(State)


class OnDisk:
    """What lies on the disk of jobs; what the scheduler asks.

    Args:
        cuts: by the id of a job whose run was given up in a race, the cut of its board as it is now.
    """

    def __init__(self, cuts: Mapping[str, float] | None = None) -> None:
        self.cuts = cuts or {}

    def done(self, job: Job) -> bool:
        """Whether its result is there: the network of a training; of an evaluation the record, in the run folder or
        filed, or in a race the bound of a run that is out of it: of this network, for this rank."""
        if job.kind == "train":
            return is_there(job.folder / "model.safetensors")
        if job.place.race is not None:
            bound = read_bound(job.folder)
            if bound is not None and bound.holds(job.folder, job.place.race, self.cuts.get(job.id)):
                return True
        return self.record(job) is not None

    def record(self, job: Job) -> Path | None:
        """The record of its run, in the run folder or filed; None: there is none."""
        filed = job.place.results_dir
        places = [job.folder / "record.json", *([filed / "records" / job.record] if filed is not None else [])]
        return next((path for path in places if path.exists()), None)

    def elsewhere(self, job: Job) -> bool:
        """Whether some process works on it now."""
        return worked_on(job.folder, job.kind)

    def reached(self, job: Job) -> object:
        """How far it got: its newest checkpoint, and when its evaluation's state was last kept."""
        state = job.folder / "evaluation.npz"
        checkpoints = sorted(path.name for path in job.folder.glob("checkpoint-*"))
        return checkpoints, state.stat().st_mtime_ns if state.exists() else 0


def worked_on(folder: Path, kind: Kind) -> bool:
    """Whether another process works in a run folder: a worker that beats, or anybody who holds its lock."""
    note = read_note(folder, kind)
    return (note is not None and note.alive and not note.mine) or _held(folder)


def _held(folder: Path) -> bool:
    lock = folder / ".lock"
    if not lock.exists():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that is not ours to write in
        return False


@dataclass(frozen=True)
class Seen:
    """A job's state.

    Attributes:
        id: of the job.
        state: ``waiting`` for other jobs; ``ready``; ``running``; ``stopped`` in order or ``lost`` (both go on where
            they were); ``failed``; ``done``.
        waits: ids of the jobs that it waits for.
        note: what its worker left, if it is in hand.
        log: what it printed.
        bound: what a race left of it, if it was given up.
    """

    id: str
    state: State
    waits: tuple[str, ...]
    note: Note | None
    log: Path
    bound: Bound | None = None

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        note = self.note.model_dump(exclude={"state"}) if self.note else None
        return {"job": self.id, "state": self.state, "waits": list(self.waits), "note": note, "log": str(self.log)}

    @property
    def text(self) -> str:
        """What there is to say about it, in one line."""
        note = self.note
        if self.bound is not None:
            return self.bound.text
        if self.state == "waiting":
            own = self.id.rpartition(".")[0]
            return f"for {', '.join('its training' if need == f'{own}.train' else need for need in self.waits)}"
        if note is None:
            return "by another command" if self.state == "running" else ""
        if self.state == "failed":
            return f"{note.reason}  log: {self.log}"
        again = f", session {note.sessions}" if note.sessions > 1 else ""
        far = f"{note.what} {note.done}/{note.total} ({note.share:.0%})" if note.total else "starting"
        return f"{far} on {note.host}{again}"


def states_of(pieces: dict[str, Piece], disk: OnDisk) -> list[Seen]:
    """The states of a plan's jobs, in its order."""
    left = left_of(pieces, disk.done)
    return [_seen(piece.job, piece.needs, left) for piece in pieces.values()]


def _seen(job: Job, needs: tuple[str, ...], left: Mapping[str, Piece]) -> Seen:
    if job.id not in left:
        return Seen(job.id, "done", (), None, job.log, _bound(job.folder, job.kind))
    waits = tuple(need for need in needs if need in left)
    state, note = _in_hand(job.folder, job.kind)
    if waits and note is None:  # whoever holds the folder does what it waits for
        state = "waiting"
    return Seen(job.id, state or "ready", waits, note, job.log, None if state else _bound(job.folder, job.kind))


def _bound(folder: Path, kind: Kind) -> Bound | None:
    """What a race left of an evaluation that has no record."""
    return read_bound(folder) if kind == EVALUATE and not (folder / "record.json").exists() else None


def _in_hand(folder: Path, kind: Kind) -> tuple[State | None, Note | None]:
    """The state of a job that is begun and not done; None: nobody has begun it, or not left a note."""
    note = read_note(folder, kind)
    if note is None:
        other = read_note(folder, EVALUATE if kind == TRAIN else TRAIN)
        return ("running" if not (other and other.alive) and _held(folder) else None), None
    if note.state == "running":
        return ("running" if note.alive else "lost"), note
    return note.state, note


def states_in(runs_dir: Path) -> list[Seen]:
    """The states of whatever lies in a folder of runs, without a plan: trainings that were begun, and evaluations that
    were begun or could be."""
    found = []
    for folder in sorted(path for path in runs_dir.glob("*") if path.is_dir()):
        network, record = (folder / name for name in ("model.safetensors", "record.json"))
        for kind, done, begun in (
            (TRAIN, is_there(network) or record.exists(), (folder / "plan.json").exists()),
            (EVALUATE, record.exists(), (folder / "evaluation.npz").exists()),
        ):
            state, note = (None, None) if done else _in_hand(folder, kind)
            if done or state or begun or _bound(folder, kind):
                log = folder / f"{kind}.log"
                bound = _bound(folder, kind) if state is None else None
                found.append(Seen(f"{folder.name}.{kind}", "done" if done else state or "ready", (), note, log, bound))
    return found
