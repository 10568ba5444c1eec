"""The command line starts quickly, in units of what Python itself needs on the same machine."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

LTBENCH = "from ltrobust_bench.cli.main import main; main()"


def cpu_seconds(*arguments):
    """Least processor time of a Python process: other work on the machine takes its caches, and makes it more."""
    taken = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=os.environ)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


@pytest.mark.parametrize(("arguments", "times"), [(["--help"], 20), (["list", "methods"], 36)])
def test_start_up(arguments, times):
    assert cpu_seconds("-c", LTBENCH, *arguments) <= times * cpu_seconds("-c", "pass")
