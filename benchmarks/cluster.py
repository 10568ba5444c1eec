"""Sweeps that lose their workers: ``python benchmarks/cluster.py`` (``make cluster``).

Does one sweep of short digits runs four times, each in a folder of its own: undisturbed; on a Ray cluster of several
local nodes, of which one is killed and another added; by the local executor, whose workers are killed at random times;
and by submitit's local executor, whose jobs are asked to stop. Every record must arrive, once, with the digest of the
undisturbed one. Prints counts and times; leaves with 1 if a record is missing, twice there or different.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ltrobust_bench.executors.base import Executor, Job, Outcome, Place
from ltrobust_bench.executors.local import Local, LocalOptions
from ltrobust_bench.plan.request import Request
from ltrobust_bench.records.io import read_record
from ltrobust_bench.sweeps.jobs import pieces_of
from ltrobust_bench.sweeps.scheduler import Rules, Scheduler, Step
from ltrobust_bench.sweeps.states import OnDisk

METHODS = ("at", "trades", "reat", "crt", "tau-norm", "selfdistill")
"""The last three build on another run: two-stage, post-hoc, and with a teacher."""
Disturb = Callable[["Sweep"], None]


class Sweep:
    """One sweep in a folder, and what was seen of it.

    Attributes:
        requests: the runs.
        ends: how sessions ended, counted.
        done: job ids whose session ended well, counted.
        disturbances: times that something was killed or stopped.
    """

    def __init__(self, folder: Path, executor: Executor, seeds: int) -> None:
        self.requests = [
            Request(method, "digits-lt", protocol="smoke", seed=seed, epochs=2, limit_train=200, limit_test=50)
            for method in METHODS
            for seed in range(seeds)
        ]
        self.executor = executor
        place = Place(runs_dir=folder, device="cpu", threads=1)
        pieces = pieces_of(self.requests, place).values()
        self.evaluations = [piece.job for piece in pieces if piece.job.kind == "evaluate"]
        steps = [Step(piece.job, piece.needs) for piece in pieces]
        self.scheduler = Scheduler(steps, executor, OnDisk(), Rules(retry=0, period=0.1), told=self)
        self.ends: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.disturbances = 0

    def began(self, job: Job) -> None:
        """See :class:`Told`."""

    def ended(self, outcome: Outcome, again: bool) -> None:
        """See :class:`Told`."""
        self.ends[outcome.end] += 1
        self.done[outcome.job.id] += outcome.end == "done"
        if outcome.end == "failed":
            click.echo(f"  {outcome.job.id} failed: {outcome.reason or outcome.job.log.read_text()[-300:]}")

    def run(self, disturb: Disturb) -> float:
        """Have it done while ``disturb`` is called at every step; seconds that it took."""
        began = time.monotonic()
        while self.scheduler.step():
            disturb(self)
            time.sleep(self.scheduler.rules.period)
        return time.monotonic() - began

    def digests(self) -> dict[str, str]:
        """Digest of every record in the folder, by run key."""
        files = self.evaluations[0].place.runs_dir.glob("*/record.json")
        records = [read_record(file) for file in files]
        found = {record.run.key(): record.result.digest for record in records}
        assert len(found) == len(records), "two records of one run"
        return found


def at_random(times: int, every: float, act: Callable[[random.Random], bool]) -> Disturb:
    """Do something at random moments.

    Args:
        times: how often.
        every: seconds between two, on average.
        act: does it, and tells whether there was something to do it to.
    """
    draw = random.Random(0)
    due = [time.monotonic() + draw.expovariate(1 / every)]

    def disturb(sweep: Sweep) -> None:
        if sweep.disturbances < times and time.monotonic() >= due[0]:
            sweep.disturbances += act(draw)
            due[0] = time.monotonic() + draw.expovariate(1 / every)

    return disturb


def kill_workers(local: Local, times: int, every: float) -> Disturb:
    """SIGKILL for a worker of the local executor, at random moments."""

    def kill(draw: random.Random) -> bool:
        alive = [process for _, process, _ in local.running if process.poll() is None]
        if alive:
            os.killpg(draw.choice(alive).pid, signal.SIGKILL)
        return bool(alive)

    return at_random(times, every, kill)


def stop_jobs(slurm: Any, times: int, every: float) -> Disturb:
    """SIGTERM for a job of submitit's local executor, at random moments."""

    def stop(draw: random.Random) -> bool:
        alive = [handle for _, handle in slurm.queued if not handle.done()]
        if alive:
            draw.choice(alive)._process.send_signal(signal.SIGTERM)  # passed on to the job as Slurm does
        return bool(alive)

    return at_random(times, every, stop)


def lose_node(cluster: Any, nodes: list[Any]) -> Disturb:
    """SIGKILL for everything on one node in the middle of the sweep, and another node."""

    def disturb(sweep: Sweep) -> None:
        if not sweep.disturbances and sum(sweep.done.values()) >= len(sweep.scheduler.steps) // 3:
            sweep.disturbances = 1
            raylet = nodes[0].all_processes["raylet"][0].process.pid
            for pid in [raylet, *descendants(raylet)]:
                os.kill(pid, signal.SIGKILL)
            cluster.remove_node(nodes[0], allow_graceful=False)
            add_node(cluster)
            click.echo("  one node killed, another added")

    return disturb


def descendants(pid: int) -> Iterator[int]:
    """Processes below a process."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield int(child)
            yield from descendants(int(child))


def add_node(cluster: Any) -> Any:
    """A node for one job at a time."""
    return cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)


@contextmanager
def ray_cluster(nodes: int) -> Iterator[tuple[Any, list[Any]]]:
    """A Ray cluster on this machine: a head that does no jobs, and nodes that do."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster, [add_node(cluster) for _ in range(nodes)]
    finally:
        cluster.shutdown()


def quiet(folder: Path, seeds: int, workers: int) -> tuple[Sweep, float]:
    """Undisturbed, by the local executor."""
    sweep = Sweep(folder, Local(LocalOptions(workers=workers)), seeds)
    return sweep, sweep.run(lambda _: None)


def by_ray(folder: Path, seeds: int, workers: int) -> tuple[Sweep, float]:
    """By a Ray cluster that loses a node."""
    from ltrobust_bench.executors.ray import Ray, RayOptions

    with ray_cluster(workers) as (cluster, nodes):
        executor = Ray(RayOptions(address=cluster.address))
        try:
            sweep = Sweep(folder, executor, seeds)
            return sweep, sweep.run(lose_node(cluster, nodes))
        finally:
            executor.close()


def by_local(folder: Path, seeds: int, workers: int, kills: int, every: float) -> tuple[Sweep, float]:
    """By the local executor, whose workers are killed."""
    executor = Local(LocalOptions(workers=workers))
    sweep = Sweep(folder, executor, seeds)
    return sweep, sweep.run(kill_workers(executor, kills, every))


def by_submitit(folder: Path, seeds: int, workers: int, stops: int, every: float) -> tuple[Sweep, float]:
    """By submitit's local executor, whose jobs are asked to stop."""
    from ltrobust_bench.executors.slurm import Slurm, SlurmOptions

    executor = Slurm(SlurmOptions(cluster="local", workers=workers))
    try:
        sweep = Sweep(folder, executor, seeds)
        return sweep, sweep.run(stop_jobs(executor, stops, every))
    finally:
        executor.close()


def report(name: str, sweep: Sweep, seconds: float, expected: dict[str, str]) -> bool:
    """Print a sweep's counts; whether all is as it should be."""
    found = sweep.digests()
    missing = [job.run for job in sweep.evaluations if not (job.folder / "record.json").exists()]
    other = [key for key in expected if key in found and found[key] != expected[key]]
    twice = [name for name, count in sweep.done.items() if count > 1]
    ends = ", ".join(f"{count} {end}" for end, count in sorted(sweep.ends.items()))
    click.echo(
        f"{name}: {len(sweep.scheduler.steps)} jobs, {sweep.disturbances} disturbances, sessions: {ends}; "
        f"{len(found)} of {len(sweep.requests)} records, {len(twice)} jobs done twice, {len(other)} digests differ, "
        f"{seconds:.0f} s"
    )
    return not (missing or other or twice) and len(found) == len(sweep.requests)


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Runs per method.")
@click.option("--workers", type=click.IntRange(2), default=2, show_default=True, help="Jobs at a time, Ray nodes.")
@click.option("--kills", default=30, show_default=True, help="Workers of the local executor that are killed.")
@click.option("--stops", default=10, show_default=True, help="Jobs of submitit's that are asked to stop.")
@click.option("--every", default=5.0, show_default=True, help="Seconds between two of those, on average.")
@click.option("--only", multiple=True, type=click.Choice(["ray", "local", "submitit"]), help="Not all three.")
def main(seeds: int, workers: int, kills: int, stops: int, every: float, only: tuple[str, ...]) -> None:
    """Disturb sweeps and compare what they yield."""
    parts = {
        "ray": lambda folder: by_ray(folder, seeds, workers),
        "local": lambda folder: by_local(folder, seeds, workers, kills, every),
        "submitit": lambda folder: by_submitit(folder, seeds, workers, stops, every),
    }
    with tempfile.TemporaryDirectory() as scratch:
        sweep, seconds = quiet(Path(scratch) / "quiet", seeds, workers)
        expected = sweep.digests()
        good = report("undisturbed", sweep, seconds, expected)
        for name in only or parts:
            good &= report(name, *parts[name](Path(scratch) / name), expected)
    sys.exit(not good)


if __name__ == "__main__":
    main()
