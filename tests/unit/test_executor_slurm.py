"""The Slurm executor without Slurm: submitit's local and debug executors, and commands that only look like Slurm's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ltrobust_bench.errors import UsageError
from ltrobust_bench.executors.base import AGAIN, Job, Place
from ltrobust_bench.executors.slurm import Slurm, SlurmOptions, Task
from ltrobust_bench.plan.request import Request

pytest.importorskip("submitit")

WORKER = """
import pathlib, signal, sys, time
from ltrobust_bench.executors.base import obey_tether
folder = pathlib.Path(sys.argv[1])
def stop(*_):
    print("stopped", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
obey_tether()
print("session", flush=True)
while not (folder / "go").exists():
    time.sleep(0.02)
sys.exit(int((folder / "go").read_text()))
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Jobs whose process ends when a file ``go`` in the run folder says with which exit code."""
    monkeypatch.setattr(Job, "command", lambda self: [sys.executable, "-c", WORKER, str(self.folder)])
    return make_jobs(tmp_path / "runs")


def make_jobs(runs_dir, count=3):
    place = Place(runs_dir=runs_dir, device="cpu", threads=1)
    request = Request("at", "digits-lt")
    return [Job(kind="train", request=request, run=f"r{n}", record=f"{n}.json", place=place) for n in range(count)]


def go(job, code=0):
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "go").write_text(str(code))


def until(true, seconds=60.0):
    """What ``true`` returns, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
    return value


def log(job):
    return job.log.read_text().split() if job.log.exists() else []


def test_what_starts_together_is_one_array_and_each_job_has_its_own_outcome(jobs):
    executor = Slurm(SlurmOptions(cluster="debug", workers=3))
    for job, code in zip(jobs, (0, 2, AGAIN), strict=True):
        go(job, code)
        executor.start(job)
    assert executor.free() == 0
    ended = executor.finished()
    assert [(outcome.job, outcome.code, outcome.end) for outcome in ended] == [
        (jobs[0], 0, "done"),
        (jobs[1], 2, "failed"),
        (jobs[2], AGAIN, "again"),
    ]
    assert executor.free() == 3 and not executor.finished()


@pytest.fixture
def local(jobs, monkeypatch):
    """Submitit's local executor, whose processes are this test's jobs."""
    folder = jobs[0].place.runs_dir.parent
    (folder / "sitecustomize.py").write_text(
        "import sys\nfrom ltrobust_bench.executors.base import Job\n"
        f"Job.command = lambda self: [sys.executable, '-c', {WORKER!r}, str(self.folder)]\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
    executor = Slurm(SlurmOptions(cluster="local"))
    yield executor
    executor.close()


def test_a_job_that_is_told_to_stop_queues_itself_again(jobs, local):
    local.start(jobs[0])
    assert not local.finished()
    until(lambda: log(jobs[0]) == ["session"])
    local.queued[0][1]._process.send_signal(signal.SIGTERM)
    until(lambda: log(jobs[0]) == ["session", "stopped", "session"])
    assert not local.finished(), "it was queued again, nothing has ended"
    go(jobs[0])
    (outcome,) = until(local.finished)
    assert outcome.end == "done" and outcome.job == jobs[0]


@pytest.mark.slow
def test_a_sweep_that_is_stopped_leaves_nothing_queued_or_running(jobs, local):
    local.start(jobs[0])
    local.finished()
    until(lambda: log(jobs[0]) == ["session"])
    local.stop()
    (outcome,) = until(local.finished)
    assert outcome.end in ("again", "lost")
    until(lambda: log(jobs[0]) == ["session", "stopped"])
    time.sleep(1)
    assert log(jobs[0]) == ["session", "stopped"], "it began again"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands that look like Slurm's: what is submitted lies in ``submitted``."""
    programs = tmp_path / "programs"
    programs.mkdir()
    texts = {
        "srun": "",
        "scancel": f"echo $@ >> {tmp_path}/cancelled",
        "sbatch": f"cp $1 {tmp_path}/submitted; grep -q nowhere $1 && {{ echo 'no such partition' >&2; exit 1; }}; "
        "echo Submitted batch job 77",
        "sacct": "echo 'JobID|State|NodeList'",
    }
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\nexit 0\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_options_reach_slurm(jobs, slurm):
    names = {"partition": "gpu", "account": "us", "qos": "low", "constraint": "a100"}
    executor = Slurm(
        SlurmOptions(workers=2, threads_per_worker=4, gpus_per_job=1, time=90, grace=60, memory=8, **names)
    )
    for job in jobs[:2]:
        executor.start(job)
    assert executor.free() == 0 and not executor.finished()
    lines = (slurm / "submitted").read_text().splitlines()
    for line in (
        "partition=gpu", "account=us", "qos=low", "constraint=a100", "time=90", "signal=USR2@60", "mem=8GB",
        "cpus-per-task=4", "gpus-per-node=1", "array=0-1%2",
    ):  # fmt: skip
        assert f"#SBATCH --{line}" in lines
    executor.close()
    assert (slurm / "cancelled").read_text().split() == ["77_0", "77_1"]


def test_what_slurm_refuses_has_failed_with_its_own_words(jobs, slurm):
    executor = Slurm(SlurmOptions(partition="nowhere"))
    executor.start(jobs[0])
    (outcome,) = executor.finished()
    assert outcome.end == "failed" and "no such partition" in outcome.reason and "\n" not in outcome.reason


def test_what_is_missing_is_said_in_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="no Slurm here"):
        Slurm(SlurmOptions())
    with pytest.raises(UsageError, match="whole devices"):
        Slurm(SlurmOptions(gpus_per_job=0.5))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'ltrobust-bench\[slurm\]'"):
        Slurm(SlurmOptions())


def test_storage_that_is_not_shared_is_said_and_nothing_is_written(jobs):
    code, reason = Task(jobs[0], jobs[0].folder / "stopped")()
    assert code == 2 and "storage that all machines share" in reason
    assert not jobs[0].place.runs_dir.exists()


def test_a_job_stops_in_order_when_who_launched_it_is_gone(jobs):
    jobs[0].folder.mkdir(parents=True)
    launching = (
        "import sys, time\nfrom ltrobust_bench.executors.base import Job, launch_there\n"
        f"Job.command = lambda self: [sys.executable, '-c', {WORKER!r}, str(self.folder)]\n"
        "launch_there(Job.model_validate_json(sys.argv[1]))\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", launching, jobs[0].model_dump_json()])
    until(lambda: log(jobs[0]) == ["session"])
    parent.kill()
    parent.wait()
    until(lambda: log(jobs[0]) == ["session", "stopped"])
