"""Work that runs the code of a method, done in processes apart, so that who judges a network imports nothing of it.

Such a process is told to do one thing and to leave one file. It has the environment variables that computing needs and
no others (no tokens), and no network where the system lets a user take it away (``unshare``). It runs as the same user
all the same: what it may do to files is what this user may do. So whoever does not trust a method at all writes the
graph elsewhere (``ltbench record graph``, in a container) and judges that file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TextIO

import torch

from ltrobust_bench.errors import CheckFailed
from ltrobust_bench.executors.base import TETHER, Job, Place
from ltrobust_bench.plan.code import PACKAGE
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.progress import Progress
from ltrobust_bench.terms import printable

KEPT = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TEMP", "TMP", "TMPDIR", "TZ", "VIRTUAL_ENV")
BEGINNINGS = ("CUDA_", "KMP_", "LC_", "LTBENCH_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_", "TORCH_")
"""Environment variables that such a process has, by name and by the beginning of their names."""
GRAPH, TRAINING = 1800.0, 7 * 86_400.0
"""Seconds that writing a graph may take (minutes for the largest network), and a training."""
LOUDEST, PART = 100_000_000, 1_000_000
"""Characters that such a process may write in all, and that are read at once."""
LINE, SHOWN = 2000, 300
"""Characters of one of its lines that are looked at, and that are shown."""
ALONE = ("unshare", "--user", "--map-current-user", "--net", "--")


def write_graph_apart(network: Path, output: Path, progress: Progress) -> None:
    """Write a network's graph to a file: ``ltbench record graph``.

    Raises:
        CheckFailed: with the reason, if it cannot be written as one.
    """
    command = ["-m", "ltrobust_bench", "record", "graph", str(network.absolute()), "--output", str(output)]
    _run(command, {}, progress, "its graph could not be written", GRAPH)


def trained_apart(run: RunSection, folder: Path, data_dir: Path | None, device: str, progress: Progress) -> Path:
    """Train a run in a folder; its run folder.

    Raises:
        CheckFailed: with the reason, if it ends without a network.
    """
    place = Place(runs_dir=folder.absolute(), data_dir=data_dir and data_dir.absolute(), device=device,
                  threads=torch.get_num_threads())  # fmt: skip
    job = Job.of("train", run, Request.of(run), 0, place)
    progress.note(f"training {job.run} in a process of its own")
    _run(job.command()[1:], job.environment(), progress, f"{job.run} could not be trained again", TRAINING)
    return job.folder


def _run(command: Sequence[str], more: Mapping[str, str], progress: Progress, failed: str, patience: float) -> None:
    """Run Python with these arguments; its lines are passed on.

    Args:
        patience: seconds that it may take.

    Raises:
        CheckFailed: saying what failed, and the last line, if it leaves with another code than 0, does not end, or
            says too much.
    """
    variables = {k: v for k, v in os.environ.items() if k in KEPT or k.startswith(BEGINNINGS)}
    variables |= {**more, TETHER: "1", "PYTHONDONTWRITEBYTECODE": "1"}
    before = _package_files()
    with tempfile.TemporaryDirectory(prefix="ltbench-apart-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as writing, log.open(encoding="utf-8", errors="replace") as reading:
            arguments = [*_without_network(), sys.executable, *command]
            process = subprocess.Popen(arguments, env=variables, stdin=subprocess.PIPE, stdout=writing, stderr=writing)
            try:
                last, stopped = _followed(process, reading, progress, patience)
            finally:
                process.kill()  # where it was interrupted; what has ended stays ended
                process.wait()
    if _package_files() != before:
        raise CheckFailed(f"{failed}: meanwhile files of the package were changed at {PACKAGE}")
    if stopped:
        raise CheckFailed(f"{failed}: {stopped}")
    if process.returncode:
        raise CheckFailed(f"{failed}: {last.removeprefix('Error: ') or f'exit code {process.returncode}'}")


def _followed(process: subprocess.Popen[bytes], log: TextIO, progress: Progress, patience: float) -> tuple[str, str]:
    """Pass on what a process writes into its log until it ends (not until the log is closed: what it started may live
    on); its last line, cut, and why it is not waited for any longer, or nothing."""
    last, rest, ended, said, end = "", "", False, 0, time.monotonic() + patience
    while not ended:
        ended = process.poll() is not None
        part = log.read(PART)
        said += len(part)
        *lines, rest = (rest + part).split("\n")
        rest = rest[:LINE]
        for line in [*lines, *[rest] * (ended and not part)]:
            if line.strip():
                last = printable(line.strip()[:LINE], SHOWN)
                progress.note(last)
        if said > LOUDEST:
            return last, f"it wrote more than {LOUDEST / 1e6:g} MB"
        if not ended and time.monotonic() > end:
            return last, f"it did not end within {patience:g} seconds"
        ended = ended and not part  # what it wrote last is read first
        time.sleep(0.0 if part else 0.1)
    return last, ""


@cache
def _without_network() -> tuple[str, ...]:
    """What a command begins with to have no network; nothing where a user cannot take it away."""
    if shutil.which(ALONE[0]) is None:
        return ()
    tried = subprocess.run([*ALONE, "true"], capture_output=True, check=False)
    return ALONE if tried.returncode == 0 else ()


def _package_files() -> dict[str, str]:
    """Digests of the package's own code on the disk."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in PACKAGE.rglob("*.py")}
