"""Where and with what a result was made."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime

from ltrobust_bench.machine import version_of
from ltrobust_bench.plan.code import Code, worst
from ltrobust_bench.records.schema import Environment


def environment(device: str, threads: int, precision: str, code: Sequence[Code], devices: int = 1) -> Environment:
    """The environment of this process.

    Whether kernels repeat is asked of torch, which is there where a result is made.

    Args:
        device: name of the processor or accelerator computed on.
        threads: CPU threads used by torch, for each device.
        precision: of training; the verdict is always float32 with TF32 off.
        code: of all sessions that led to the result, this process's last.
        devices: how many there were, each for its part of every batch.
    """
    import torch

    return Environment(
        package_version=code[-1].package_version,
        git_commit=code[-1].commit,
        git_dirty=worst(code),
        python=platform.python_version(),
        torch=version_of("torch") or "",
        pyautoattack=version_of("pyautoattack"),
        device=device,
        threads=threads,
        devices=devices,
        precision=precision,
        tf32=False,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        code=list(code),
    )
