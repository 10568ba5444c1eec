"""The scheduler alone, with ten thousand jobs: ``python benchmarks/simulate_sweep.py``.

Runs the loop of ``ltrobust_bench/sweeps/scheduler.py`` against nodes, a disk and a clock that are made up: nothing is
trained, only states change. Jobs take hours and keep checkpoints; nodes die under them and come back, jobs fail, are
stopped and queued again. Checks that every job is done once, never before what it needs and never twice at a time, and
prints what the scheduler itself costs. Two sweeps over the same jobs share the work by what lies on the disk.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from ltrobust_bench.executors.base import AGAIN, Executor, Job, Outcome, Place
from ltrobust_bench.plan.request import Request
from ltrobust_bench.sweeps.scheduler import Rules, Scheduler, Step

HOUR = 3600.0
CHECKPOINTS = 20
"""Of a job; what it has done since the last one is lost with its node."""
REPAIR = 0.5 * HOUR
FAILING, STOPPED = 0.01, 0.02
"""Shares of sessions that end with an error, or in order before the job is done."""
RULES, IDLE = Rules(retry=5), 1000


class Clock:
    """A time that only moves when it is told to, and what happens in it."""

    def __init__(self) -> None:
        self.now, self.events = 0.0, list[tuple[float, int, Callable[[], None]]]()
        self.count = itertools.count()

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float, happen: Callable[[], None]) -> None:
        """Have something happen."""
        heapq.heappush(self.events, (self.now + seconds, next(self.count), happen))

    def sleep(self, seconds: float) -> None:
        """Pass the time until something happens, in steps of so many seconds."""
        self.now = max(self.now + seconds, math.ceil(self.events[0][0] / seconds) * seconds)
        while self.events[0][0] <= self.now:
            heapq.heappop(self.events)[2]()


@dataclass
class Disk:
    """What lies on the disk of the jobs: see :class:`ltrobust_bench.sweeps.scheduler.Disk`.

    Attributes:
        completed: how often each job was done.
        kept: checkpoints of each.
        held: jobs that a process works on, of whichever sweep.
    """

    completed: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    held: set[str] = field(default_factory=set)

    def done(self, job: Job) -> bool:
        return job.id in self.completed

    def elsewhere(self, job: Job) -> bool:
        return job.id in self.held

    def reached(self, job: Job) -> object:
        return self.kept[job.id]


class Fleet(Executor):
    """Nodes that do jobs by the clock, and die.

    Args:
        steps: all jobs by id.
        slots: jobs that a node does at a time.
        life: mean seconds between two deaths of a node.
    """

    help = "a simulation"

    def __init__(  # type: ignore[override]
        self, clock: Clock, disk: Disk, steps: dict[str, Step], nodes: int, slots: int, life: float, seed: int
    ) -> None:
        self.clock, self.disk, self.steps, self.slots, self.life = clock, disk, steps, slots, life
        self.draw = random.Random(seed)
        self.up: dict[int, set[str]] = {}
        self.sessions: dict[str, tuple[Job, float]] = {}
        self.ended: list[Outcome] = []
        self.deaths = 0
        for node in range(nodes):
            self.appear(node)

    def free(self) -> int:
        return sum(self.slots - len(jobs) for jobs in self.up.values())

    def start(self, job: Job) -> None:
        name = job.id
        assert name not in self.disk.held, f"{name} is done twice at a time"
        assert all(need in self.disk.completed for need in self.steps[name].needs), f"{name} began before its needs"
        node = min(self.up, key=lambda node: len(self.up[node]))
        self.up[node].add(name)
        self.disk.held.add(name)
        session = self.sessions[name] = job, self.clock.now
        code = self.draw.choices([1, AGAIN, 0], [FAILING, STOPPED, 1 - FAILING - STOPPED])[0]
        left = self.steps[name].seconds * (1 - self.disk.kept[name] / CHECKPOINTS)

        def end() -> None:
            if self.sessions.get(name) is session:  # else its node died meanwhile
                self.up[node].remove(name)
                self.end(name, code)

        self.clock.after(left * (self.draw.random() if code else 1), end)

    def finished(self) -> Sequence[Outcome]:
        ended, self.ended = self.ended, []
        return ended

    def stop(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def end(self, name: str, code: int | None) -> None:
        """A session ends; what is not done keeps its checkpoints."""
        job, began = self.sessions.pop(name)
        self.disk.held.remove(name)
        if code == 0:
            self.disk.completed[name] += 1
        else:
            self.disk.kept[name] += int((self.clock.now - began) / self.steps[name].seconds * CHECKPOINTS)
        self.ended.append(Outcome(job, code))

    def appear(self, node: int) -> None:
        """A node comes, and will die."""
        self.up[node] = set()
        self.clock.after(self.draw.expovariate(1 / self.life), lambda: self.die(node))

    def die(self, node: int) -> None:
        """A node dies with what it does, and is repaired."""
        self.deaths += 1
        for name in self.up.pop(node):
            self.end(name, None)
        self.clock.after(REPAIR, lambda: self.appear(node))


def make_steps(count: int, draw: random.Random) -> dict[str, Step]:
    """Jobs as a board has them: 2 % trainings that others build on, the rest trainings and their evaluations."""
    bases = max(1, count // 50)
    place = Place(runs_dir=Path("/runs"))
    steps = dict[str, Step]()

    def add(run: str, kind: str, needs: tuple[str, ...], hours: float) -> str:
        job = Job(kind=kind, request=Request("at", "digits-lt"), run=run, record=f"{run}.json", place=place)
        steps[job.id] = Step(job, needs, hours * HOUR)
        return job.id

    base = [add(f"base-{number}", "train", (), draw.uniform(2, 6)) for number in range(bases)]
    for number in range((count - bases) // 2):
        needs = (draw.choice(base),) if number % 2 else ()
        training = add(f"run-{number}", "train", needs, draw.uniform(1, 8))
        add(f"run-{number}", "evaluate", (training,), draw.uniform(0.5, 2))
    return steps


def simulate(jobs: int, nodes: int, slots: int, life: float, sweeps: int, seed: int = 0) -> dict[str, float]:
    """Do sweeps of the same jobs at the same time, each with nodes of its own.

    Args:
        life: mean hours between two deaths of a node.

    Returns:
        What happened and what it cost, by name.

    Raises:
        AssertionError: if a job is lost, done twice, or began too early.
    """
    clock, disk = Clock(), Disk()
    steps = make_steps(jobs, random.Random(seed))
    fleets = [Fleet(clock, disk, steps, nodes, slots, life * HOUR, seed + number) for number in range(sweeps)]
    spent, loops, going = Stopwatch(), 0, True
    with spent:
        schedulers = [Scheduler(list(steps.values()), fleet, disk, RULES, None, clock, clock.sleep) for fleet in fleets]
    while going:
        with spent:
            going = sum(scheduler.step() for scheduler in schedulers) > 0
        loops += 1
        clock.sleep(RULES.period)
    assert disk.completed == Counter(steps.keys()), "jobs were lost, or done twice"
    assert all(sorted(scheduler.report.done) == sorted(steps) for scheduler in schedulers), "a report is wrong"
    losses, failures = (sum(getattr(s.report, what) for s in schedulers) for what in ("losses", "failures"))
    idle = Stopwatch()
    with idle:
        for _ in range(IDLE):
            schedulers[0].step()
    return {
        "jobs": len(steps),
        "sweeps": sweeps,
        "nodes": nodes * sweeps,
        "deaths of nodes": sum(fleet.deaths for fleet in fleets),
        "sessions lost": losses,
        "sessions failed": failures,
        "simulated hours": clock.now / HOUR,
        "steps with something to do": loops,
        "scheduler's seconds": spent.seconds,
        "scheduler's seconds per 1,000 jobs": spent.seconds / len(steps) * 1000,
        "microseconds of a step with nothing to do": idle.seconds / IDLE * 1e6,
    }


class Stopwatch:
    """Adds up the processor time of its blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.began = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self.began


@click.command()
@click.option("--jobs", type=click.IntRange(3), default=10_000, show_default=True)
@click.option("--nodes", type=click.IntRange(1), default=64, show_default=True, help="Of each sweep.")
@click.option("--slots", type=click.IntRange(1), default=8, show_default=True, help="Jobs of a node at a time.")
@click.option("--life", default=24.0, show_default=True, help="Mean hours between two deaths of a node.")
@click.option("--sweeps", type=click.IntRange(1), default=1, show_default=True, help="Of the same jobs at one time.")
@click.option("--seed", default=0, show_default=True)
def main(jobs: int, nodes: int, slots: int, life: float, sweeps: int, seed: int) -> None:
    """Simulate a sweep and print what it cost."""
    for name, value in simulate(jobs, nodes, slots, life, sweeps, seed).items():
        click.echo(f"{name:45} {value:12,.{3 * (value != int(value))}f}")


if __name__ == "__main__":
    main()
