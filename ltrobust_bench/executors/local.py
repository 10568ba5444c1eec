"""Processes on this machine: the executor that needs nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from typing import ClassVar

from ltrobust_bench.errors import UsageError
from ltrobust_bench.executors.base import TETHER, Executor, Job, Options, Outcome, launch
from ltrobust_bench.machine import usable_cores

END = 5.0
"""Seconds that a process gets to go when it is killed."""


class LocalOptions(Options):
    """Workers on this machine."""

    @property
    def threads(self) -> int:
        """The cores that this process may use, divided among the workers, so that they do not fight."""
        return self.threads_per_worker or max(1, usable_cores() // self.workers)


class Local(Executor):
    """One process per job, with its own threads and, where there are any, CUDA devices.

    Devices are handed out by ``CUDA_VISIBLE_DEVICES``: a job gets the one with the most room, or several whole ones.
    """

    help: ClassVar[str] = "processes on this machine"
    takes: ClassVar[type[Options]] = LocalOptions

    def __init__(self, options: Options) -> None:
        self.workers = options.workers
        self.running: list[tuple[Job, subprocess.Popen[bytes], list[str]]] = []
        devices = cuda_devices()
        self.share = options.gpus_per_job if options.gpus_per_job is not None else float(bool(devices))
        self.room = dict.fromkeys(devices, 1.0)
        if self.share > 1 and self.share != int(self.share):
            raise UsageError(f"--gpus-per-job {self.share:g}: more than one device is a whole number of them.")
        if self.share > len(devices):
            raise UsageError(f"--gpus-per-job {self.share:g}: this machine has {len(devices)} CUDA devices.")

    def free(self) -> int:
        left = self.workers - len(self.running)
        if not self.share or left <= 0:
            return max(0, left)
        if self.share >= 1:
            return min(left, int(sum(room == 1 for room in self.room.values()) // self.share))
        return min(left, sum(int(room / self.share + 1e-6) for room in self.room.values()))

    def start(self, job: Job) -> None:
        devices = self._roomiest()
        # Tethered: killed without a word, the sweep leaves nobody behind.
        variables = {TETHER: "1"} | ({"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {})
        process = launch(job, variables, stdin=subprocess.PIPE)
        for device in devices:
            self.room[device] -= min(self.share, 1.0)
        self.running.append((job, process, devices))

    def finished(self) -> Sequence[Outcome]:
        ended = [entry for entry in self.running if entry[1].poll() is not None]
        self.running = [entry for entry in self.running if entry not in ended]
        for _, _, devices in ended:
            for device in devices:
                self.room[device] = min(1.0, self.room[device] + min(self.share, 1.0))
        return [Outcome(job, process.returncode) for job, process, _ in ended]

    def stop(self) -> None:
        for _, process, _ in self.running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    def close(self) -> None:
        for _, process, _ in self.running:
            with contextlib.suppress(ProcessLookupError):
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)
                else:  # Windows: no groups; a tethered process ends its own
                    process.kill()
        for _, process, _ in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END)
        self.running = []

    def _roomiest(self) -> list[str]:
        """Devices with room for one more job."""
        if not self.share:
            return []
        roomy = sorted(self.room, key=lambda device: -self.room[device])  # stable: of equals the first
        return roomy[: max(1, int(self.share))]


def cuda_devices() -> list[str]:
    """The CUDA devices of this machine that are free to use, as ``CUDA_VISIBLE_DEVICES`` names them. Asks the driver's
    own program, since torch would have to be imported."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        asked = [program, "--query-gpu=index", "--format=csv,noheader"]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return found.stdout.split() if found.returncode == 0 else []
