"""A Ray cluster: each job is a task that asks for CPUs and shares of GPUs, and runs where there is room."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from ltrobust_bench.errors import LTBenchError, UsageError
from ltrobust_bench.executors.base import AGAIN, Executor, Job, Options, Outcome, launch_there

POLL = 0.2
"""Seconds between two looks of a task at its process; a task can only be cancelled between two."""
KNOCK = 10.0
"""Seconds that a cluster may take to answer at all."""


class RayOptions(Options):
    """Jobs as tasks of a Ray cluster; the threads of a job are the CPUs that it asks for."""

    workers: int = Field(
        default=0,
        ge=0,
        description="Jobs given to Ray at a time; 0: as many as fit on its nodes now (more than that makes a cluster "
        "that grows on demand grow).",
    )
    address: str = Field(default="auto", description="The Ray cluster, e.g. HOST:6379; auto: the one of this machine.")

    @property
    def threads(self) -> int:
        """CPU threads of a job."""
        return self.threads_per_worker or 1


class Ray(Executor):
    """One task per job, with its CPUs and GPUs as Ray's resources. The task starts the job's process and waits for it;
    logs, progress, checkpoints and results are in the run folder, which is on storage that all nodes share.

    Ray is not asked to try again: what its nodes lose is given to it anew by the scheduler, which knows from the disk
    what is left to do.
    """

    help: ClassVar[str] = "tasks of a Ray cluster"
    takes: ClassVar[type[Options]] = RayOptions

    def __init__(self, options: Options) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise UsageError("the ray executor needs Ray: pip install 'ltrobust-bench[ray]'") from None
        assert isinstance(options, RayOptions)
        self.ray, self.workers = ray, options.workers
        self.mine = not ray.is_initialized()
        try:
            _knock(options.address)
            ray.init(options.address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"no Ray cluster at {options.address} ({why}); `ray start --head` begins one, --address HOST:PORT "
                "names another."
            ) from None
        total = ray.cluster_resources()
        self.gpus = options.gpus_per_job if options.gpus_per_job is not None else float("GPU" in total)
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise UsageError(f"--gpus-per-job {self.gpus:g}: more than one device is a whole number of them.")
        self.cpus = options.threads
        self.task = ray.remote(max_retries=0)(work)
        self.running: dict[Any, Job] = {}

    def free(self) -> int:
        room = self.workers or sum(places(node["Resources"], self.cpus, self.gpus) for node in self._nodes())
        return max(0, room - len(self.running))

    def start(self, job: Job) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        task = self.task.options(num_cpus=self.cpus, num_gpus=self.gpus, name=job.id)
        self.running[task.remote(job)] = job

    def finished(self) -> Sequence[Outcome]:
        if not self.running:
            return []
        waiting = list(self.running)
        ended, _ = self.ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [self._outcome(task, self.running.pop(task)) for task in ended]

    def stop(self) -> None:
        for task in self.running:
            self.ray.cancel(task)

    def close(self) -> None:
        for task in self.running:
            self.ray.cancel(task, force=True)
        if self.mine:
            self.ray.shutdown()

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _outcome(self, task: Any, job: Job) -> Outcome:
        errors = self.ray.exceptions
        try:
            code, reason = self.ray.get(task)
        except errors.TaskCancelledError:
            return Outcome(job, AGAIN)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError, errors.TaskUnschedulableError) as error:
            return Outcome(job, 1, str(error).strip().splitlines()[-1])
        except errors.RayError as error:  # the node, its worker or its memory are gone
            return Outcome(job, None, str(error).splitlines()[0])
        return Outcome(job, code, reason)


def _knock(address: str) -> None:
    """Connect to a cluster that is named by host and port, since Ray itself would wait for it for minutes.

    Raises:
        OSError, ValueError: if nobody is there, or there is no such port.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), KNOCK).close()


def places(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many jobs fit on a node.

    Args:
        resources: of the node, as Ray names them.
        cpus: of a job.
        gpus: of a job; less than one: a share of a device, which is never put together from two.
    """
    by_cpu = int(resources.get("CPU", 0) // cpus)
    if not gpus:
        return by_cpu
    devices = int(resources.get("GPU", 0))
    return min(by_cpu, devices // int(gpus) if gpus >= 1 else devices * int(1 / gpus + 1e-6))


def work(job: Job) -> tuple[int, str]:
    """Do a job on the node where this is called: exit code of its process, and what there is to say.

    Ray's cancelling arrives as a KeyboardInterrupt; the process is then asked to stop in order.
    """
    try:
        process = launch_there(job)
    except LTBenchError as error:
        return error.exit_code, str(error)
    try:
        while process.poll() is None:
            time.sleep(POLL)
    except KeyboardInterrupt:
        process.terminate()
    return process.wait(), ""
