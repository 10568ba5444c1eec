"""What a Windows machine has not, a run does without; files are read and written as UTF-8 on every system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = """
import importlib, os, pkgutil, signal, sys
# What other packages and Python itself use of this system is left to them; they have their own ways on others.
import torch, torchvision, torch.distributed, torch.export, matplotlib.figure, scipy.stats, pandas, sklearn.datasets
import asyncio, filelock, getpass, http.client, jinja2, multiprocessing, platform, platformdirs.unix, rich.console, ssl
import pyautoattack, shutil, tempfile, urllib.request, uuid

for name in ("fork", "forkpty", "killpg", "getpgid", "setsid", "getuid", "geteuid", "getgid", "uname", "sysconf",
             "sched_getaffinity", "sched_setaffinity", "nice", "getloadavg", "mkfifo", "chown", "fchmod", "statvfs",
             "pread", "pwrite", "symlink"):
    delattr(os, name)
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGXCPU", "SIGALRM", "SIGPIPE", "SIGCHLD", "SIGSTOP",
             "alarm", "setitimer", "pthread_kill", "pthread_sigmask"):
    delattr(signal, name)
sys.modules |= dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios"))

import ltrobust_bench

for module in pkgutil.walk_packages(ltrobust_bench.__path__, "ltrobust_bench."):
    if ".baselines" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from ltrobust_bench.cli.main import main

for line in sys.argv[1:]:
    assert main(line.split()) == 0, line
"""


@pytest.mark.slow
def test_a_run_needs_nothing_that_windows_has_not(tmp_path):
    """No fork, no group of processes, no signal but SIGTERM and SIGINT, no symbolic link."""
    lines = [
        "run --method at --dataset digits-lt --protocol smoke --threads 1",
        "report leaderboard --records runs --no-figures",
        "sweep --help",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *lines], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("runs/at-digits-lt-*/record.json"))


def test_every_file_is_opened_with_an_encoding():
    """Windows would take its code page; the rule is in ruff's preview."""
    words = [sys.executable, "-m", "ruff", "check", "--preview", "--select", "PLW1514", "--no-cache"]
    folders = ["ltrobust_bench", "baselines", "benchmarks", "docs", ".github", "examples"]
    done = subprocess.run([*words, *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
