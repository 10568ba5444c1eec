"""Where and with what a result was made."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ltrobust_bench.plan.code import Code, worst
from ltrobust_bench.records.schema import Environment


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def environment(device: str, threads: int, precision: str, code: Sequence[Code], devices: int = 1) -> Environment:
    """The environment of this process.

    Args:
        device: name of the processor or accelerator computed on.
        threads: CPU threads used by torch, for each device.
        precision: of training; the verdict is always float32 with TF32 off.
        code: of all sessions that led to the result, this process's last.
        devices: how many there were, each for its part of every batch.
    """
    return Environment(
        package_version=code[-1].package_version,
        git_commit=code[-1].commit,
        git_dirty=worst(code),
        python=platform.python_version(),
        torch=_version("torch") or "",
        pyautoattack=_version("pyautoattack"),
        device=device,
        threads=threads,
        devices=devices,
        precision=precision,
        tf32=False,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        code=list(code),
    )


def device_name(kind: str) -> str:
    """A device as a reader knows it: the GPU's name, or the CPU's."""
    if kind.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(kind)
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} (CPU)"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()} (CPU)"
