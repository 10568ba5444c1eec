"""Slurm, through submitit: the jobs that may start together become one job array, and requeue themselves."""

from __future__ import annotations

import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from ltrobust_bench.errors import LTBenchError, UsageError
from ltrobust_bench.executors.base import Executor, Job, Options, Outcome, launch_there

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Sent before a job is preempted, at its time limit (USR2, by submitit), or by whoever cancels it. Windows,
which has no Slurm, has only the first."""
REQUEUES = 1000
"""So often a job may reach its time limit; each time it has got further."""
POLL = 0.5
"""Seconds after which a task looks whether its process ended."""
LOOK = 5.0
"""Seconds between two looks at the results of a queue's jobs, which lie on shared storage."""


class SlurmOptions(Options):
    """Job arrays of Slurm; the threads of a job are the CPUs that it asks for."""

    workers: int = Field(default=256, ge=1, description="Jobs in Slurm's queue at a time.")
    partition: str | None = Field(default=None, description="Slurm's partition.")
    account: str | None = Field(default=None, description="Slurm's account.")
    qos: str | None = Field(default=None, description="Slurm's quality of service.")
    constraint: str | None = Field(default=None, description="Features that the nodes must have, for Slurm.")
    time: int = Field(
        default=240, ge=1, description="Minutes after which Slurm ends a job, which queues itself again and goes on."
    )
    grace: int = Field(default=120, ge=1, description="Seconds before that limit at which a job is asked to stop.")
    memory: float | None = Field(default=None, gt=0, description="GB of memory of a job.")
    cluster: Literal["slurm", "local", "debug"] = Field(
        default="slurm", description="local, debug: the same without Slurm, on this machine or in this process."
    )

    @property
    def threads(self) -> int:
        """CPU threads of a job."""
        return self.threads_per_worker or 1


class Slurm(Executor):
    """Whatever is started in one step of the scheduler is submitted as one array at its next look.

    A job that is asked to stop because of its time limit or because it is preempted has Slurm queue it again, so that
    a sweep goes on while nobody watches it. The options that are missing here are sbatch's own variables, such as
    ``SBATCH_RESERVATION``.
    """

    help: ClassVar[str] = "job arrays of Slurm, through submitit"
    takes: ClassVar[type[Options]] = SlurmOptions

    def __init__(self, options: Options) -> None:
        try:
            import submitit
        except ModuleNotFoundError:
            raise UsageError("the slurm executor needs submitit: pip install 'ltrobust-bench[slurm]'") from None
        assert isinstance(options, SlurmOptions)
        if options.gpus_per_job and options.gpus_per_job != int(options.gpus_per_job):
            raise UsageError(f"--gpus-per-job {options.gpus_per_job:g}: Slurm hands out whole devices.")
        if options.cluster == "slurm" and submitit.SlurmExecutor.affinity() < 0:
            raise UsageError(
                "no Slurm here: `srun` is not found; type this on a machine from which jobs are submitted."
            )
        self.submitit, self.options = submitit, options
        self.look = LOOK if options.cluster == "slurm" else 0.5
        self.looked, self.stopping = 0.0, False
        self.collected: list[Job] = []
        self.queued: list[tuple[Job, Any]] = []
        self.name = f"stopped-{uuid.uuid4().hex}"

    def free(self) -> int:
        return max(0, self.options.workers - len(self.collected) - len(self.queued))

    def start(self, job: Job) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        self.collected.append(job)

    def finished(self) -> Sequence[Outcome]:
        refused = self._submit()
        if time.monotonic() - self.looked < self.look:
            return refused
        self.looked = time.monotonic()
        if self.stopping and self.options.cluster == "slurm":
            self.submitit.SlurmJob.watcher.update()  # else Slurm is asked every ten minutes
        ended = [entry for entry in self.queued if entry[1].done()]
        self.queued = [entry for entry in self.queued if entry not in ended]
        return [*refused, *(_outcome(job, handle) for job, handle in ended)]

    def stop(self) -> None:
        self.stopping = True
        for job, handle in self.queued:
            self._stopped(job).touch()
            handle.cancel(check=False)

    def close(self) -> None:
        self.stop()

    def _submit(self) -> list[Outcome]:
        """Submit what was collected; the jobs that were refused."""
        jobs, self.collected = self.collected, []
        if not jobs:
            return []
        engine = self._engine(jobs[0])
        try:
            with engine.batch():
                handles = [engine.submit(Task(job, self._stopped(job))) for job in jobs]
        except (OSError, subprocess.SubprocessError, RuntimeError, self.submitit.core.utils.FailedJobError) as error:
            reason = f"Slurm does not take it: {str(error).strip().splitlines()[-1]}"
            return [Outcome(job, 1, reason) for job in jobs]
        self.queued += zip(jobs, handles, strict=True)
        return []

    def _engine(self, job: Job) -> Any:
        """Submitit's executor for jobs like this one."""
        asked = self.options
        engine = self.submitit.AutoExecutor(
            _folder(job), asked.cluster, slurm_max_num_timeout=REQUEUES, local_max_num_timeout=REQUEUES
        )
        engine.update_parameters(
            name="ltbench",
            timeout_min=asked.time,
            cpus_per_task=asked.threads,
            gpus_per_node=int(asked.gpus_per_job or 0) or None,
            mem_gb=asked.memory,
            slurm_partition=asked.partition,
            slurm_account=asked.account,
            slurm_qos=asked.qos,
            slurm_constraint=asked.constraint,
            slurm_signal_delay_s=asked.grace,
            slurm_array_parallelism=asked.workers,
        )
        return engine

    def _stopped(self, job: Job) -> Path:
        """The file that says to the jobs of this sweep that they are not to queue themselves again."""
        return _folder(job) / self.name


class Task:
    """What submitit calls on the node: does a job, asks it to stop when Slurm does, and has it queued again.

    Args:
        job: the job.
        stopped: a file that is there once the sweep itself was stopped.
    """

    def __init__(self, job: Job, stopped: Path) -> None:
        self.job, self.stopped = job, stopped

    def __call__(self) -> tuple[int, str]:
        """Exit code of the job's process, and what there is to say."""
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's; Slurm starts the job again
        asked: list[int] = []
        before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in SIGNALS}
        try:
            process = launch_there(self.job)
            while process.poll() is None:
                time.sleep(POLL)
                if asked:
                    process.terminate()
                    process.wait()
        except LTBenchError as error:
            return error.exit_code, str(error)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        goes_on = Outcome(self.job, process.returncode).end in ("again", "lost")
        if goes_on and asked and callable(requeue) and not self.stopped.exists():
            requeue(signal.SIGUSR2, None)  # leaves this process
        return process.returncode, ""

    def checkpoint(self) -> Any:
        """Called by submitit before it queues a job again: what to do then."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _folder(job: Job) -> Path:
    """Where submitit keeps what it hands to the nodes."""
    return job.place.runs_dir / ".submitit"


def _outcome(job: Job, handle: Any) -> Outcome:
    error = handle.exception()
    if error is None:
        code, reason = handle.result()
        if code == 0:
            for path in (handle.paths.submitted_pickle, handle.paths.result_pickle):
                path.unlink(missing_ok=True)
        return Outcome(job, code, reason)
    lost = type(error).__name__ == "UncompletedJobError"
    return Outcome(job, None if lost else 1, str(error).strip().splitlines()[0 if lost else -1])
