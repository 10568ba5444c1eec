"""``python -m ltrobust_bench.verbs.work JOB``: one job, done in this process. Executors start it; see :class:`Job`."""

from __future__ import annotations

import signal
import sys
import time
import traceback

import torch
from rich.console import Console

from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.errors import BusyError, LTBenchError
from ltrobust_bench.executors.base import AGAIN, Job, obey_tether
from ltrobust_bench.progress import Progress, RichProgress
from ltrobust_bench.sweeps.notes import Noted
from ltrobust_bench.sweeps.states import worked_on
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs.runs import run_plan

PATIENCE = 10.0
"""Seconds that a run folder may be held by others, who may only be reading what they build on."""


def work(job: Job, inner: Progress) -> int:
    """Do a job; a note in its run folder tells how far it is, or why it failed.

    Returns:
        0: done; ``AGAIN``: it was stopped (a KeyboardInterrupt), or another process works in the run folder; else it
        failed.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if not worked_on(job.folder, job.kind):
            try:
                return _noted(job, Noted(inner, job))
            except BusyError:
                pass  # the note is the other's, who writes it again
        time.sleep(0.5)
    return AGAIN


def _noted(job: Job, progress: Noted) -> int:
    """Do a job and leave a note of how it ends; none if it is done."""
    try:
        with progress:
            _do(job, progress)
    except BusyError:
        raise
    except KeyboardInterrupt as stopped:
        progress.inner.note(f"stopped by {stopped}; the same job goes on from here")
        progress.write("stopped")
        return AGAIN
    except LTBenchError as error:
        return _failed(progress, str(error), error.exit_code)
    except OSError as error:  # a full disk, a vanished folder
        where = f": {error.filename}" if error.filename else ""
        return _failed(progress, f"{error.strerror or error}{where}", 1)
    except Exception as error:  # noqa: BLE001 - a fault of ours or of a method's: the log has it all, the table a line
        traceback.print_exc()
        line = (str(error).strip().splitlines() or [""])[0]
        return _failed(progress, f"{type(error).__name__}: {line}", 1)
    progress.path.unlink(missing_ok=True)
    return 0


def _do(job: Job, progress: Progress) -> None:
    plan, place = job.to_plan(), job.place
    device = choose_device(place.device)
    if job.kind == "train":
        train_plan(plan, job.folder, device, progress)
    else:
        run_plan(plan, runs_dir=place.runs_dir, results_dir=place.results_dir, device=device, progress=progress)


def _failed(progress: Noted, reason: str, code: int) -> int:
    progress.inner.note(f"Error: {reason}")
    progress.write("failed", reason)
    return code


def _stop(number: int, _: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(arguments: list[str]) -> int:
    """Do the job that is given as JSON."""
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, _stop)
    obey_tether()
    job = Job.model_validate_json(arguments[0])
    if job.place.threads is not None:
        torch.set_num_threads(job.place.threads)
    console = Console(highlight=False, markup=False, emoji=False, width=200)
    with RichProgress(console) as progress:
        return work(job, progress)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
