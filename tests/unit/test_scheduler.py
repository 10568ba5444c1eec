"""The scheduler against an executor and a disk of its own: no job too early, none lost, none twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ltrobust_bench.executors.base import AGAIN, Executor, Job, Place
from ltrobust_bench.executors.base import Outcome as End
from ltrobust_bench.plan.request import Request
from ltrobust_bench.sweeps.scheduler import ELSEWHERE, LOSSES, Rules, Scheduler, Step

REQUEST, PLACE = Request("at", "digits-lt"), Place(runs_dir=Path("/nowhere"))


def job(name):
    return Job(kind="train", request=REQUEST, run=str(name), record="", place=PLACE)


class World(Executor):
    """An executor, a disk and a clock in one. Jobs take ``seconds`` and end as ``ends`` says, in its order; 0 after."""

    help = ""

    def __init__(self, workers=2, seconds=10.0, ends=None):
        self.workers, self.seconds, self.ends = workers, seconds, ends or {}
        self.now, self.running, self.there, self.others = 0.0, {}, set(), {}
        self.starts, self.far, self.looked, self.stopped = [], {}, 0, False

    def sleep(self, seconds):
        self.now += max(seconds, 1.0)

    def free(self):
        return self.workers - len(self.running)

    def start(self, job):
        assert self.free() > 0 and job.id not in self.there and job.id not in self.running
        self.starts.append(job.id)
        self.running[job.id] = (job, self.now + self.seconds)

    def finished(self):
        ended = [(job, at) for job, at in self.running.values() if at <= self.now or self.stopped]
        return [self.end(job, at) for job, at in ended]

    def end(self, job, at):
        del self.running[job.id]
        if at > self.now:
            return End(job, AGAIN)
        code = self.ends[job.id].pop(0) if self.ends.get(job.id) else 0
        if code == 0:
            self.there.add(job.id)
        return End(job, code)

    def stop(self):
        self.stopped = True

    def close(self): ...

    def done(self, job):
        self.looked += 1
        return job.id in self.there or self.now >= self.others.get(job.id, float("inf"))

    def elsewhere(self, job):
        self.looked += 1
        return self.now < self.others.get(job.id, 0.0)

    def reached(self, job):
        return self.far.get(job.id, 0)


def run(world, steps, **rules):
    return Scheduler(steps, world, world, Rules(**rules), clock=lambda: world.now, sleep=world.sleep).run()


def chain(*names, seconds=10.0):
    """Each needs the one before it."""
    return [Step(job(name), (job(names[place - 1]).id,) if place else (), seconds) for place, name in enumerate(names)]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_all_is_done_once_and_nothing_before_what_it_needs(seed):
    draw = random.Random(seed)
    names = [job(place).id for place in range(40)]
    needs = {name: tuple(draw.sample(names[:place], min(place, draw.randrange(4)))) for place, name in enumerate(names)}
    ends = {name: [draw.choice([None, -9, AGAIN, 137]) for _ in range(draw.randrange(4))] for name in names}
    sessions = {name: len(codes) + 1 for name, codes in ends.items()}
    world = World(draw.randrange(1, 6), ends=ends)
    steps = [Step(job(place), needs[name]) for place, name in enumerate(names)]
    report = run(world, steps)
    assert sorted(report.done) == sorted(names) and not report.left and not report.failed
    assert {name: world.starts.count(name) for name in names} == sessions
    for name in names:
        assert all(report.done.index(need) < report.done.index(name) for need in needs[name])
        assert all(world.starts.index(name) > world.starts.index(need) for need in needs[name])


def test_a_failure_ends_the_sweep_and_lets_what_runs_finish():
    world = World(2, ends={job("a").id: [1]})
    report = run(world, [*chain("a", "b"), *chain("c", "d"), *chain("e")])
    assert list(report.failed) == [job("a").id] and report.done == [job("c").id]
    assert report.left == [job(name).id for name in "bde"]


def test_a_sweep_that_keeps_going_does_what_does_not_need_the_failed_job():
    world = World(1, ends={job("a").id: [1, 1, 1, 1]})
    report = run(world, [*chain("a", "b"), *chain("c", "d")], keep_going=True, retry=2)
    assert world.starts.count(job("a").id) == 3 and report.failures == 3
    assert report.done == [job("c").id, job("d").id] and report.left == [job("b").id]


def test_a_retry_that_succeeds_is_a_success():
    report = run(World(1, ends={job("a").id: [2]}), chain("a", "b"), retry=1)
    assert report.done == [job("a").id, job("b").id] and not report.failed


def test_a_job_that_is_lost_over_and_over_without_getting_further_fails():
    world = World(1, ends={job("a").id: [-9] * 100})
    report = run(world, chain("a"))
    assert len(world.starts) == report.losses == LOSSES and report.failed

    class Moving(World):
        def reached(self, job):
            return len(self.starts)

    assert run(Moving(1, ends={job("a").id: [-9] * 100}), chain("a")).losses == 100


def test_what_is_lost_after_it_was_done_is_done():
    class Late(World):
        def end(self, job, at):
            self.there.add(job.id)
            del self.running[job.id]
            return End(job, -9)

    world = Late(1)
    report = run(world, chain("a", "b"))
    assert report.done == [job("a").id, job("b").id] and not report.losses and len(world.starts) == 2


def test_what_somebody_else_does_is_waited_for_and_not_started():
    world = World(2)
    world.others = {job("a").id: 33.0}
    report = run(world, [*chain("a", "b"), *chain("c")])
    assert report.done[0] == job("c").id and job("a").id not in world.starts
    assert sorted(report.done) == [job(name).id for name in "abc"]
    assert 43 <= world.now <= 43 + ELSEWHERE + 3  # it is noticed soon


def test_what_somebody_else_gives_up_is_done_here():
    class GivesUp(World):
        def done(self, job):
            return job.id in self.there

    world = GivesUp(1)
    world.others = {job("a").id: 20.0}
    assert run(world, chain("a")).done == [job("a").id] and world.starts == [job("a").id]


def test_nothing_is_started_that_would_not_fit():
    world = World(1, seconds=10.0)
    steps = [*chain("a"), *chain("long", seconds=50.0), *chain("b"), *chain("c", "d")]
    report = run(world, steps, max_seconds=35.0)
    assert report.done == [job(name).id for name in "abc"] and world.now <= 36
    assert report.left == [job("long").id, job("d").id] and not report.failed


def test_an_interrupted_sweep_asks_its_workers_and_says_what_is_left():
    world = World(2, seconds=100.0)
    scheduler = Scheduler([*chain("a", "b"), *chain("c")], world, world, clock=lambda: world.now, sleep=world.sleep)
    scheduler.step()
    scheduler.interrupt("SIGTERM")
    report = scheduler.run()
    assert world.stopped and not world.running and report.interrupted == "SIGTERM"
    assert report.left == [job(name).id for name in "abc"]


def test_a_worker_that_does_not_stop_is_waited_for_no_longer_than_the_grace_period():
    class Deaf(World):
        def stop(self): ...

    world = Deaf(1, seconds=1e6)
    scheduler = Scheduler(chain("a"), world, world, Rules(grace=20), clock=lambda: world.now, sleep=world.sleep)
    scheduler.step()
    scheduler.interrupt("SIGINT")
    assert scheduler.run().left == [job("a").id] and world.now <= 22


def test_a_job_that_cannot_be_started_fails():
    class Full(World):
        def start(self, job):
            raise OSError(28, "No space left on device")

    (outcome,) = run(Full(1), chain("a")).failed.values()
    assert outcome.reason == "could not be started: No space left on device"


def test_the_cost_is_in_proportion_to_the_jobs():
    looks = {}
    for many in (500, 4000):
        world = World(workers=64)
        steps = [step for place in range(many // 2) for step in chain(f"{place}a", f"{place}b")]
        assert len(run(world, steps).done) == many
        looks[many] = world.looked
    assert looks[4000] <= 8.1 * looks[500]
