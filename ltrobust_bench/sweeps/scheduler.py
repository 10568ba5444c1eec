"""The loop that has jobs done: which may start, which start again, when to give up.

It knows jobs, what they need, an executor and a disk, and touches nothing else, so that it can be simulated. Its state
is no truth: after a crash the same is found again on the disk. A step costs in proportion to what happened since the
last one, not to the number of jobs.
"""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ltrobust_bench.executors.base import Executor, Job, Outcome

LOSSES = 10
"""So often in a row a job may be lost without having got any further."""
ELSEWHERE, LOOKS = 5.0, 100
"""Seconds between two looks at a job that another process does, and looks per step at most."""


class Disk(Protocol):
    """What lies on the disk of a job."""

    def done(self, job: Job) -> bool:
        """Whether its result is there."""

    def elsewhere(self, job: Job) -> bool:
        """Whether some process works on it now."""

    def reached(self, job: Job) -> object:
        """How far it got; another value, if it got further."""


class Told(Protocol):
    """Who is told what happens."""

    def began(self, job: Job) -> None:
        """It was given to the executor."""

    def ended(self, outcome: Outcome, again: bool) -> None:
        """It ended, and whether it is queued again."""


@dataclass(frozen=True)
class Step:
    """A job in a sweep.

    Attributes:
        job: the job.
        needs: ids of jobs that must be done before, all of the same sweep.
        seconds: what it takes, estimated; 0: not known.
    """

    job: Job
    needs: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Rules:
    """How a sweep is done.

    Attributes:
        retry: so often a job that failed is begun again.
        keep_going: after a failure start what does not need the failed job.
        max_seconds: start nothing that would not be finished by then.
        period: seconds between steps.
        grace: seconds that running jobs have to end when asked to.
    """

    retry: int = 0
    keep_going: bool = False
    max_seconds: float | None = None
    period: float = 0.2
    grace: float = 60.0


@dataclass
class Report:
    """How a sweep ended: job ids by what became of them.

    Attributes:
        done: finished, here or by somebody else meanwhile.
        failed: the last outcome of each that failed for good.
        left: not done: it did not fit the time, needs one that failed, or the sweep was stopped.
        losses, failures: sessions that ended so, retried ones too.
        interrupted: by what it was asked to stop; empty: by nothing.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, Outcome] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    losses: int = 0
    failures: int = 0
    interrupted: str = ""


class Scheduler:
    """Has the jobs of a sweep done.

    Args:
        steps: in the order in which they are to start where nothing else decides.
        executor: by whom; it is not closed.
        disk: what lies there.
        rules: see :class:`Rules`.
        told: is told what happens.
        clock, sleep: replaced in simulations.

    Example: ``Scheduler(steps, executor, disk).run().left``
    """

    def __init__(
        self,
        steps: Sequence[Step],
        executor: Executor,
        disk: Disk,
        rules: Rules = Rules(),
        told: Told | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.steps: Mapping[str, Step] = {step.job.id: step for step in steps}
        self.order = {name: place for place, name in enumerate(self.steps)}
        self.executor, self.disk, self.rules, self.told = executor, disk, rules, told
        self.clock, self.sleep = clock, sleep
        self.began = clock()
        self.waiting = {name: len(set(step.needs)) for name, step in self.steps.items()}
        self.needed_by: dict[str, list[str]] = defaultdict(list)
        for name, step in self.steps.items():
            for need in set(step.needs):
                self.needed_by[need].append(name)
        self.ready = [(self.order[name], name) for name, count in self.waiting.items() if not count]
        self.elsewhere: list[tuple[float, int, str]] = []
        self.running: set[str] = set()
        self.failures: dict[str, int] = defaultdict(int)
        self.lost: dict[str, tuple[int, object]] = {}
        self.report = Report()
        self.stopping = False

    def run(self) -> Report:
        """Until all is done that can be, or :meth:`interrupt` is called."""
        while self.step() and not self.report.interrupted:
            self.sleep(self.rules.period)
        if self.report.interrupted:
            self._stop()
        settled = {*self.report.done, *self.report.failed}
        self.report.left = [name for name in self.steps if name not in settled]
        return self.report

    def interrupt(self, why: str) -> None:
        """Stop in order: start nothing more, and have what runs keep what it has. Signal handlers call it."""
        self.report.interrupted = self.report.interrupted or why

    def step(self) -> bool:
        """See what ended, start what may; whether there is more to wait for."""
        for outcome in self.executor.finished():
            self._end(outcome)
        if not self.stopping:
            self._look()
            self._start()
        return bool(self.running or (not self.stopping and (self.ready or self.elsewhere)))

    def _stop(self) -> None:
        """Have what runs end in order, and wait for it no longer than the grace period."""
        self.stopping = True
        self.executor.stop()
        until = self.clock() + self.rules.grace
        while self.step() and self.clock() < until:
            self.sleep(self.rules.period)

    def _start(self) -> None:
        free = self.executor.free() if self.ready else 0
        while self.ready and free > 0:
            _, name = heapq.heappop(self.ready)
            step = self.steps[name]
            if self.disk.done(step.job):
                self._done(name)
            elif self.disk.elsewhere(step.job):
                self._later(name)
            elif self._fits(step):
                free -= 1
                self._begin(name, step.job)

    def _begin(self, name: str, job: Job) -> None:
        try:
            self.executor.start(job)
        except OSError as error:
            self._end(Outcome(job, 1, f"could not be started: {error.strerror or error}"))
            return
        self.running.add(name)
        if self.told:
            self.told.began(job)

    def _fits(self, step: Step) -> bool:
        limit = self.rules.max_seconds
        return limit is None or self.clock() - self.began + step.seconds <= limit

    def _later(self, name: str) -> None:
        """It is somebody else's now: look again after a while."""
        heapq.heappush(self.elsewhere, (self.clock() + ELSEWHERE, self.order[name], name))

    def _look(self) -> None:
        """At jobs that others do, when their time has come."""
        for _ in range(LOOKS):
            if not self.elsewhere or self.elsewhere[0][0] > self.clock():
                return
            _, _, name = heapq.heappop(self.elsewhere)
            if self.disk.done(self.steps[name].job):
                self._done(name)
            elif self.disk.elsewhere(self.steps[name].job):
                self._later(name)
            else:
                self._queue(name)

    def _queue(self, name: str) -> None:
        heapq.heappush(self.ready, (self.order[name], name))

    def _done(self, name: str) -> None:
        self.report.done.append(name)
        for other in self.needed_by[name]:
            self.waiting[other] -= 1
            if not self.waiting[other]:
                self._queue(other)

    def _end(self, outcome: Outcome) -> None:
        name = outcome.job.id
        self.running.discard(name)
        if self.disk.done(outcome.job):  # its result counts: it may have been killed just after it was done
            outcome = replace(outcome, code=0)
        if outcome.end == "done":
            again = False
            self._done(name)
        elif outcome.end == "again":
            again = True
            self._later(name)
        else:
            again = self._may_try_again(outcome)
            if again:
                self._queue(name)
            else:
                self.report.failed[name] = outcome
                self.stopping = self.stopping or not self.rules.keep_going
        if self.told:
            self.told.ended(outcome, again)

    def _may_try_again(self, outcome: Outcome) -> bool:
        name = outcome.job.id
        if outcome.end == "failed":
            self.report.failures += 1
            self.failures[name] += 1
            return self.failures[name] <= self.rules.retry
        self.report.losses += 1
        count, before = self.lost.get(name, (0, None))
        reached = self.disk.reached(outcome.job)
        count = count + 1 if reached == before else 1
        self.lost[name] = (count, reached)
        return count < LOSSES
