"""From the runs of a plan to jobs: what each needs, which are left to do, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from ltrobust_bench.errors import LTBenchError, UsageError
from ltrobust_bench.executors.base import Job, Place
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import combined


class Piece(NamedTuple):
    """A job of a sweep.

    Attributes:
        job: the job.
        needs: ids of the jobs before it.
        plan: the run that it belongs to.
    """

    job: Job
    needs: tuple[str, ...]
    plan: Plan


def pieces_of(requests: Iterable[Request], place: Place, evaluated: bool = True) -> dict[str, Piece]:
    """The jobs of some runs by id, each once; what is needed stands before what needs it.

    Args:
        evaluated: whether runs are attacked, too; without it they are trained only.

    Raises:
        LTBenchError: for anything unknown or impossible, or data that are missing, naming the run.
    """
    pieces: dict[str, Piece] = {}
    for request in requests:
        try:
            plan = request.to_plan(place.data_dir)
        except LTBenchError as error:
            run = combined(request.method, request.plugins)
            error.args = (f"run {run} on {request.dataset}, seed {request.seed}: {error}",)
            raise
        training = _train(request, plan, 0, place, pieces)
        if not evaluated:
            continue
        evaluation = Job.of("evaluate", plan.run, request, 0, place)
        pieces.setdefault(evaluation.id, Piece(evaluation, (training,), plan))
    return pieces


def _train(request: Request, plan: Plan, level: int, place: Place, pieces: dict[str, Piece]) -> str:
    """Put a training, and before it what it builds on; its id."""
    needs = () if plan.base is None else (_train(request, plan.base, level + 1, place, pieces),)
    job = Job.of("train", plan.run, request, level, place)
    pieces.setdefault(job.id, Piece(job, needs, plan))
    return job.id


def left_of(pieces: dict[str, Piece], done: Callable[[Job], bool], only: Sequence[str] = ()) -> dict[str, Piece]:
    """What is to be done, in the same order: what was asked for and is not there (evaluations without a record; where
    nothing is evaluated, trainings without a network), and what it needs that is not there. A training is not needed
    where the record lies already.

    Args:
        pieces: of :func:`pieces_of`.
        done: whether a job's result is there.
        only: only runs whose method and plug-ins (``at+awp``) or run folder match one of these patterns, with what
            they build on; none: all.

    Raises:
        UsageError: for a pattern that matches none of the runs.
    """
    for pattern in only:
        if not any(_matches(piece, pattern) for piece in pieces.values()):
            raise UsageError(f"--only {pattern} matches none of the runs; --dry-run lists them.")
    left: dict[str, Piece] = {}
    needed: set[str] = set()
    before = {need for piece in pieces.values() for need in piece.needs}
    for name, piece in reversed(pieces.items()):
        asked = name not in before and (not only or any(_matches(piece, pattern) for pattern in only))
        if (asked or name in needed) and not done(piece.job):
            left[name] = piece
            needed |= set(piece.needs)
    return dict(reversed(left.items()))


def _matches(piece: Piece, pattern: str) -> bool:
    run = piece.plan.run
    return any(fnmatchcase(name, pattern) for name in (run.combination, piece.job.run))
