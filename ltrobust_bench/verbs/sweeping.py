"""Many runs at once: sweep, and what it would do."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.errors import RecordError, UnknownNameError, UsageError
from ltrobust_bench.executors.base import Executor, Options, Place
from ltrobust_bench.executors.registry import executors
from ltrobust_bench.files import make_folder
from ltrobust_bench.interrupt import SIGNALS
from ltrobust_bench.plan.code import code_now, difference
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.records.filing import file_record
from ltrobust_bench.records.io import find_records, read_record
from ltrobust_bench.records.schema import Record
from ltrobust_bench.sweeps.experience import Experience, told_by
from ltrobust_bench.sweeps.jobs import Piece, left_of, pieces_of
from ltrobust_bench.sweeps.notes import read_note
from ltrobust_bench.sweeps.plan import read_plan
from ltrobust_bench.sweeps.scheduler import Report, Rules, Scheduler, Step, Told
from ltrobust_bench.sweeps.states import OnDisk
from ltrobust_bench.terms import first_problem
from ltrobust_bench.training.estimate import Speed, measure, scaled
from ltrobust_bench.verbs.racing import cuts_now
from ltrobust_bench.verbs.runs import RESULTS, RUNS

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", *SIGNALS) if hasattr(signal, name))


@dataclass(frozen=True)
class Sweep:
    """A plan beside what is done of it.

    Attributes:
        pieces: all its jobs by id, what is needed before what needs it.
        left: those that are to be done.
        place: where things are.
        disk: what lies there.
    """

    pieces: dict[str, Piece]
    left: dict[str, Piece]
    place: Place
    disk: OnDisk

    @classmethod
    def of(cls, requests: Sequence[Request], place: Place, only: Sequence[str] = (), evaluated: bool = True) -> Sweep:
        """The jobs of some runs, see :func:`.jobs.pieces_of` and :func:`.jobs.left_of`."""
        pieces = pieces_of(requests, place, evaluated)
        disk = OnDisk(cuts_now(pieces, place))
        return cls(pieces, left_of(pieces, disk.done, only), place, disk)

    def costs(self) -> dict[str, float]:
        """Seconds that each job that is left will take, on a device like this one: measured once for each method with
        its plug-ins on each network and data set; of a training that was begun, what is left of it."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.place.threads or before)
        try:
            return self._costs()
        finally:
            torch.set_num_threads(before)

    def _costs(self) -> dict[str, float]:
        device, speeds = choose_device(self.place.device), dict[Any, Speed]()
        found = {}
        for name, (job, _, plan) in self.left.items():
            run = plan.run
            what = (run.method, *run.plugins, run.model, run.dataset, run.recipe.precision, run.policy.crafting)
            if what not in speeds:
                speeds[what] = measure(plan, device)
            cost = scaled(plan, speeds[what])
            note = read_note(job.folder, job.kind)
            begun = note.share if note and job.kind == "train" else 0.0
            found[name] = cost.training_seconds * (1 - begun) if job.kind == "train" else cost.evaluation_seconds
        return found

    def elsewhere(self) -> dict[str, Experience]:
        """What is left by class of devices, as far as records in the results tell, see :func:`.experience.told_by`."""
        results = self.place.results_dir
        return {} if results is None else told_by(find_records([results / "records"])[0], self.left)

    def by_other_code(self) -> list[str]:
        """Runs that count as done by a record of other code than this, or of before code was recorded: the run key
        says what was asked for, and a sweep makes nothing again that was asked for once.

        Raises:
            RecordError: for a damaged one, which else would count as done.
        """
        found = []
        for name, (job, _, plan) in self.pieces.items():
            path = self.disk.record(job) if job.kind == "evaluate" and name not in self.left else None
            if path is not None and _made_otherwise(_whole(path), plan):
                found.append(job.run)
        return found

    def file_leftovers(self, progress: Progress) -> None:
        """File records that lie in run folders only: whoever wrote them was killed before it filed them. Those that no
        board accepts stay there.

        Raises:
            RecordError: for one that is damaged.
        """
        results, stay = self.place.results_dir, list[str]()
        for job, _, plan in self.pieces.values():
            path = job.folder / "record.json"
            if job.kind != "evaluate" or results is None or plan.run.reduced or not path.exists():
                continue
            if not (results / "records" / job.record).exists():
                said = file_record(read_record(path), results)
                if said.startswith("filed"):
                    progress.note(said)
                else:
                    stay.append(f"{path}: {said}")
        if stay:
            progress.note(f"{len(stay)} finished records stay in their run folders; the first is {stay[0]}")

    def run(self, executor: Executor, rules: Rules, progress: Progress, told: Told | None = None) -> Report:
        """Have done what is left; signals that ask to stop are passed on to the workers, and the rest stays as is."""
        make_folder(self.place.runs_dir)
        if self.place.results_dir is not None:
            make_folder(self.place.results_dir)
        self.file_leftovers(progress)
        seconds = self.costs() if rules.max_seconds is not None else {}
        steps = [
            Step(job, tuple(need for need in needs if need in self.left), seconds.get(name, 0.0))
            for name, (job, needs, _) in self.left.items()
        ]
        scheduler = Scheduler(steps, executor, self.disk, rules, told)
        try:
            with _passed_on(scheduler):
                return scheduler.run()
        finally:
            executor.close()


def _whole(path: Path) -> Record:
    try:
        return read_record(path)
    except RecordError as error:
        raise RecordError(f"{error} Delete it, and its run is done again.") from None


def _made_otherwise(record: Record, plan: Plan) -> bool:
    now, codes = code_now(plan), record.environment.code
    return not codes or any(difference(code, now.get(code.work, code)) for code in codes)


@contextmanager
def _passed_on(scheduler: Scheduler) -> Iterator[None]:
    """Signals stop the scheduler in order; a second Ctrl-C at once."""

    def stop(number: int, _: object) -> None:
        if number == signal.SIGINT and scheduler.report.interrupted:
            raise KeyboardInterrupt
        scheduler.interrupt(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def executor_with(name: str, given: dict[str, Any], device: str = "auto") -> tuple[type[Executor], Options]:
    """An executor and its options.

    Args:
        given: options by name; others are at their default.
        device: where jobs compute; on ``cpu`` none gets a CUDA device.

    Raises:
        UnknownNameError: for an unknown executor, or an option that it does not have.
        UsageError: for an impossible value.
    """
    kind = executors.get(name)
    for option in given:
        if option not in kind.takes.model_fields:
            raise UnknownNameError(f"option of executor {name}", option, kind.takes.model_fields)
    if device.startswith("cuda:"):
        raise UsageError(
            f"a sweep hands out the CUDA devices itself: instead of --device {device} type "
            f"CUDA_VISIBLE_DEVICES={device.removeprefix('cuda:')} before the command."
        )
    try:
        return kind, kind.takes(**(({"gpus_per_job": 0.0} if device == "cpu" else {}) | given))
    except ValidationError as error:
        raise UsageError(f"executor {name}: {first_problem(error)}.") from None


def place_of(
    chosen: Options,
    runs_dir: Path | str,
    results_dir: Path | str | None,
    data_dir: Path | None,
    device: str,
    race: int | None = None,
) -> Place:
    """Where jobs find and leave things, by paths that hold from wherever they run."""
    return Place(
        runs_dir=Path(runs_dir).absolute(),
        results_dir=None if results_dir is None else Path(results_dir).absolute(),
        data_dir=None if data_dir is None else Path(data_dir).absolute(),
        device=device,
        threads=chosen.threads,
        race=race,
    )


def sweep(
    plan: Path | str | Sequence[Request],
    *,
    executor: str = "local",
    only: Sequence[str] = (),
    retry: int = 0,
    keep_going: bool = False,
    max_hours: float | None = None,
    race: int | None = None,
    runs_dir: Path | str = RUNS,
    results_dir: Path | str | None = RESULTS,
    data_dir: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    told: Told | None = None,
    **options: Any,
) -> Report:
    """Do many runs: what is finished anywhere is not done again, what others work on is waited for, and whatever is
    killed goes on where it was.

    Args:
        plan: file of a plan (:mod:`ltrobust_bench.sweeps.plan`), or requests.
        executor: ``local``, ``ray`` or ``slurm``.
        only: patterns of methods with plug-ins (``at*``) or run folders; default: all.
        retry: so often a job that failed is begun again.
        keep_going: after a failure do what does not need the failed job.
        max_hours: start nothing that will not be finished by then.
        race: the full suite is left out for runs that PMA alone shows to be below the entry at this rank of their
            board; they have a bound instead of a record, and no rank.
        runs_dir, results_dir, data_dir, device: see :func:`~ltrobust_bench.verbs.run`.
        progress, told: what to report to; default: nothing.
        **options: of the executor: ``workers``, ``threads_per_worker``, ``gpus_per_job`` and its own.

    Returns:
        What is done, what failed, and what is left.

    Raises:
        UsageError: for anything unknown or impossible, before the first job starts.
        RecordError: for a damaged record, which else would count as done.

    Example: ``sweep("plan.toml", workers=4).left``
    """
    kind, chosen = executor_with(executor, options, device)
    place = place_of(chosen, runs_dir, results_dir, data_dir, device, race)
    requests = read_plan(Path(plan)).requests() if isinstance(plan, (str, Path)) else plan
    prepared = Sweep.of(requests, place, only)
    prepared.by_other_code()  # a damaged record stops it here
    rules = Rules(retry=retry, keep_going=keep_going, max_seconds=None if max_hours is None else max_hours * 3600)
    return prepared.run(kind(chosen), rules, progress or Silent(), told)
