"""The Ray executor with a Ray of its own on this machine; its start alone takes seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ltrobust_bench.executors.base import Job, Place
from ltrobust_bench.executors.ray import Ray, RayOptions
from ltrobust_bench.plan.request import Request

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")

WORKER = """
import os, pathlib, signal, sys, time
from ltrobust_bench.executors.base import obey_tether
def stop(*_):
    print("stopped", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
obey_tether()
print(os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"], os.getppid(), flush=True)
while not (pathlib.Path(sys.argv[1]) / "go").exists():
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A Ray with four CPUs and two devices that are only names; its jobs wait for a file ``go`` in their run folder."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "from ltrobust_bench.executors.base import Job\n"
        f"Job.command = lambda self: [sys.executable, '-c', {WORKER!r}, str(self.folder)]\n"
    )
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [before])])
    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False, "logging_level": "ERROR"}
    ray.init("local", num_cpus=4, num_gpus=2, **small)
    yield folder / "runs"
    ray.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


def jobs(runs_dir, name, count, threads=1):
    place = Place(runs_dir=runs_dir, device="cpu", threads=threads)
    request = Request("at", "digits-lt")
    return [Job(kind="train", request=request, run=f"{name}{n}", record=f"{n}.json", place=place) for n in range(count)]


def until(true, seconds=60.0):
    """What ``true`` returns, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
    return value


def log(job):
    return job.log.read_text().split() if job.log.exists() else []


def collected(executor, count):
    """Outcomes by the run, once there are so many."""
    found = {}

    def enough():
        found.update({outcome.job.run: outcome for outcome in executor.finished()})
        return len(found) >= count

    until(enough)
    return found


def test_jobs_share_devices_and_have_their_threads_and_outcomes(here):
    executor = Ray(RayOptions(gpus_per_job=0.5, threads_per_worker=1))
    assert executor.free() == 4
    mine = jobs(here, "shared", 4)
    for job in mine:
        executor.start(job)
    assert executor.free() == 0
    seen = [until(lambda job=job: log(job)) for job in mine]
    assert sorted(device for device, _, _ in seen) == ["0", "0", "1", "1"]
    assert {threads for _, threads, _ in seen} == {"1"}
    for job in mine:
        (job.folder / "go").touch()
    assert {outcome.end for outcome in collected(executor, 4).values()} == {"done"}
    executor.close()


def test_what_is_stopped_goes_on_later_and_what_is_killed_is_lost(here):
    executor = Ray(RayOptions(gpus_per_job=0, workers=5))
    mine = jobs(here, "ended", 5)
    for job in mine:
        executor.start(job)
    killed = int(until(lambda: log(mine[0]))[-1])
    for job in mine[1:4]:
        until(lambda job=job: log(job))
    os.kill(killed, signal.SIGKILL)  # Ray's own worker: the job's process must not be left behind
    assert collected(executor, 1)["ended0"].end == "lost"
    until(lambda: log(mine[0])[-1] == "stopped")
    executor.stop()
    assert {outcome.end for outcome in collected(executor, 4).values()} == {"again"}
    executor.close()


def test_make_cluster(root):
    """A node, workers and jobs are lost, and every record arrives as if nothing had been."""
    command = [sys.executable, str(root / "benchmarks" / "cluster.py"), "--seeds", "1", "--kills", "5", "--stops", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stdout + ended.stderr
