"""``ltbench sweep``"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltrobust_bench.cli.executing import executor_options
from ltrobust_bench.cli.following import Follow, followed_in_logs
from ltrobust_bench.cli.shared import (
    PATH,
    console,
    data_dir_option,
    device_option,
    progress_on,
    results_dir_option,
    runs_dir_option,
)
from ltrobust_bench.cli.words import counted
from ltrobust_bench.executors.base import AGAIN

if TYPE_CHECKING:
    from rich.console import Console

    from ltrobust_bench.executors.base import Job, Outcome
    from ltrobust_bench.progress import Progress
    from ltrobust_bench.sweeps.scheduler import Report
    from ltrobust_bench.verbs.sweeping import Sweep

SHOWN = 20
"""Jobs that are named one by one when something is left."""


@click.command(
    epilog="""\b
    Example: ltbench sweep plan.toml --dry-run
             ltbench sweep plan.toml --workers 4
             ltbench sweep plan.toml --only 'at*' --max-hours 8 --keep-going

    Exit codes: 0 all is done, 1 a job failed, 75 something is left (no time, or asked to stop), 130 interrupted. The
    same command goes on. docs/scale.md shows plans and more."""
)
@click.argument("plan", type=PATH)
@click.option("--dry-run", is_flag=True, help="Print jobs, their order and cost, do nothing.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only these methods (at+awp, at*) or run folders, with "
              "what they build on; repeatable.")  # fmt: skip
@click.option("--max-hours", type=click.FloatRange(0, min_open=True), help="Start nothing that will not be finished.")
@click.option("--retry", type=click.IntRange(0), default=0, show_default=True, help="Begin a failed job again N times.")
@click.option("--keep-going", is_flag=True, help="After a failure do what does not need the failed job.")
@click.option("--race", type=click.IntRange(1), metavar="RANK", help="Leave the full suite out for a run that PMA "
              "shows to be below the entry at this rank of its board; it gets a bound, and no rank.")  # fmt: skip
@click.option("--executor", default="local", show_default=True, help="Where jobs are done: local, ray or slurm.")
@executor_options
@data_dir_option
@device_option
@runs_dir_option
@results_dir_option
@followed_in_logs
def command(
    plan: Path,
    dry_run: bool,
    only: tuple[str, ...],
    max_hours: float | None,
    retry: int,
    keep_going: bool,
    race: int | None,
    executor: str,
    data_dir: Path | None,
    device: str,
    runs_dir: Path,
    results_dir: Path,
    follow: Follow,
    **given: Any,
) -> int:
    """Do the runs of a PLAN (a TOML file): what is finished is not done again, what others do is waited for."""
    from ltrobust_bench.sweeps.plan import read_plan
    from ltrobust_bench.sweeps.scheduler import Rules
    from ltrobust_bench.verbs.sweeping import Sweep, executor_with, place_of

    out = console(follow.quiet)
    kind, chosen = executor_with(executor, {k: v for k, v in given.items() if v is not None}, device)
    place = place_of(chosen, runs_dir, results_dir, data_dir, device, race)
    sweep = Sweep.of(read_plan(plan).requests(), place, only)
    out.print(f"jobs: {len(sweep.pieces)}, to be done: {len(sweep.left)}")
    older = sweep.by_other_code()
    if older:
        out.print(f"done by {counted(len(older), 'record')} of other code than this, which stay: {_first(older)}")
    if dry_run:
        print_costs(out, sweep, chosen.workers)
        return 0
    rules = Rules(retry=retry, keep_going=keep_going, max_seconds=None if max_hours is None else max_hours * 3600)
    running = kind(chosen)
    with progress_on(out, follow) as progress:
        report = sweep.run(running, rules, progress, Lines(progress, len(sweep.left)))
    print_bounds(console(), sweep)
    return print_report(console(), report)


def _first(runs: list[str]) -> str:
    return runs[0] + (f" and {len(runs) - 1} more" if len(runs) > 1 else "")


def print_bounds(out: Console, sweep: Sweep) -> None:
    """The runs that are out of a race, with the bound that they have in place of a record."""
    from ltrobust_bench.sweeps.states import states_of

    for seen in states_of(sweep.pieces, sweep.disk) if sweep.place.race is not None else ():
        if seen.bound is not None:
            out.print(f"not ranked: {seen.id.rpartition('.')[0]}: {seen.bound.text}")


class Lines:
    """Tells of every job in a line, and moves a bar."""

    def __init__(self, progress: Progress, jobs: int) -> None:
        self.progress, self.since = progress, dict[str, float]()
        progress.start("jobs", jobs)

    def began(self, job: Job) -> None:
        """See :class:`~ltrobust_bench.sweeps.scheduler.Told`."""
        self.since[job.id] = time.monotonic()

    def ended(self, outcome: Outcome, again: bool) -> None:
        """See :class:`~ltrobust_bench.sweeps.scheduler.Told`."""
        from ltrobust_bench.progress import duration

        taken = duration(time.monotonic() - self.since.pop(outcome.job.id, time.monotonic()))
        words = "stopped" if outcome.end == "again" else outcome.end
        more = told(outcome) if outcome.end in ("failed", "lost") else outcome.job.id
        self.progress.note(f"{words} after {taken}{', queued again' if again else ''}: {more}")
        if not again:
            self.progress.advance()


def told(outcome: Outcome) -> str:
    """A job that did not end well: why, and where to read more."""
    from ltrobust_bench.sweeps.notes import why

    reason = why(outcome)
    return f"{outcome.job.id}: {f'{reason}  ' if reason else ''}log: {outcome.job.log}"


def print_costs(out: Console, sweep: Sweep, workers: int) -> None:
    """The jobs that are left, in the order in which they start, with their cost on this device."""
    from rich import box
    from rich.table import Table

    from ltrobust_bench.compute.device import choose_device
    from ltrobust_bench.machine import device_name
    from ltrobust_bench.progress import duration
    from ltrobust_bench.sweeps.states import states_of

    costs = sweep.costs()
    seen = {one.id: one for one in states_of(sweep.pieces, sweep.disk)}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("", "job", "state", "about"):
        table.add_column(title, overflow="fold")  # a narrow terminal folds names, and cuts none
    for number, name in enumerate(sweep.left, 1):
        table.add_row(str(number), name, seen[name].state, duration(costs[name]))
    if sweep.left:
        out.print(table)
    total = sum(costs.values())
    shared = f", {duration(total / workers)} with {workers} workers that do not slow each other" if workers > 1 else ""
    where = device_name(str(choose_device(sweep.place.device)))
    out.print(f"about {duration(total)} on {where}, one job at a time{shared}")
    for device, told in sweep.elsewhere().items():
        of = "all jobs" if told.jobs == len(sweep.left) else f"{told.jobs} of {len(sweep.left)} jobs"
        by = f"going by {told.records} records from there"
        out.print(f"about {duration(told.seconds)} on {device}, for {of}, {by}")


def print_report(out: Console, report: Report) -> int:
    """How a sweep ended; the exit code."""
    for outcome in report.failed.values():
        out.print(f"failed: {told(outcome)}", style="red")
    for name in report.left[:SHOWN]:
        out.print(f"left: {name}")
    if len(report.left) > SHOWN:
        out.print(f"left: and {len(report.left) - SHOWN} more")
    again = f", {report.losses} times lost and begun again" if report.losses else ""
    out.print(f"{len(report.done)} done, {len(report.failed)} failed, {len(report.left)} left{again}")
    if report.failed:
        return 1
    if report.left:
        out.print("The same command goes on with what is left.")
        return 130 if report.interrupted == "SIGINT" else AGAIN
    return 0
