"""``python -m ltrobust_bench.verbs.work JOB``: one job, done in this process. Executors start it; see :class:`Job`."""

from __future__ import annotations

import sys
import time
import traceback

import torch
from rich.console import Console

from ltrobust_bench import interrupt
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.errors import BusyError, LTBenchError
from ltrobust_bench.executors.base import AGAIN, Job, obey_tether
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.progress import Progress, RichProgress, Several
from ltrobust_bench.sweeps.notes import Heartbeat
from ltrobust_bench.sweeps.states import worked_on
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs.racing import given_up
from ltrobust_bench.verbs.runs import run_plan

PATIENCE = 10.0
"""Seconds that a run folder may be held by others, who may only be reading what they build on."""


def work(job: Job, follower: Progress) -> int:
    """Do a job; a note in its run folder tells how far it is, or why it failed.

    Returns:
        0: done; ``AGAIN``: it was stopped, or another process works in the run folder; else it failed.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if not worked_on(job.folder, job.kind):
            try:
                return _noted(job, follower, Heartbeat(job, follower))
            except BusyError:
                pass  # the note is the other's, who writes it again
        time.sleep(0.5)
    return AGAIN


def _noted(job: Job, follower: Progress, heart: Heartbeat) -> int:
    """Do a job and leave a note of how it ends; none if it is done."""
    try:
        with heart:
            _do(job, Several([follower, heart]))
    except BusyError:
        raise
    except (interrupt.Stopped, KeyboardInterrupt) as stopped:
        follower.note(
            str(stopped) or "Interrupted. Nothing is lost but the work in hand: the same job goes on from here."
        )
        heart.write("stopped")
        return AGAIN
    except LTBenchError as error:
        return _failed(follower, heart, str(error), error.exit_code)
    except OSError as error:  # a vanished folder
        where = f": {error.filename}" if error.filename else ""
        return _failed(follower, heart, f"{error.strerror or error}{where}", 1)
    except Exception as error:  # noqa: BLE001 - a fault of ours or of a method's: the log has it all, the table a line
        traceback.print_exc()
        line = (str(error).strip().splitlines() or [""])[0]
        return _failed(follower, heart, f"{type(error).__name__}: {line}", 1)
    heart.path.unlink(missing_ok=True)
    return 0


def _do(job: Job, progress: Progress) -> None:
    plan, place = job.to_plan(), job.place
    device = choose_device(place.device)
    if job.kind == "train":
        train_plan(plan, job.folder, device, progress)
    elif job.place.race is None or not _out_of_the_race(job, plan, device, progress):
        run_plan(plan, runs_dir=place.runs_dir, results_dir=place.results_dir, device=device, progress=progress)


def _out_of_the_race(job: Job, plan: Plan, device: torch.device, progress: Progress) -> bool:
    train_plan(plan, job.folder, device, progress)
    return given_up(plan, job.folder, job.place, progress) is not None


def _failed(follower: Progress, heart: Heartbeat, reason: str, code: int) -> int:
    follower.note(f"Error: {reason}")
    heart.write("failed", reason)
    return code


def main(arguments: list[str]) -> int:
    """Do the job that is given as JSON."""
    obey_tether()
    job = Job.model_validate_json(arguments[0])
    if job.place.threads is not None:
        torch.set_num_threads(job.place.threads)
    console = Console(highlight=False, markup=False, emoji=False, width=200)
    try:
        with interrupt.listening(ends=True), RichProgress(console) as progress:
            return work(job, progress)
    except (interrupt.Stopped, KeyboardInterrupt):  # before there was anything to keep
        return AGAIN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
