"""What this machine is, and what is installed on it. Light: torch is imported only to name a GPU."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def version_of(package: str) -> str | None:
    """Version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(kind: str) -> str:
    """A device as a reader knows it: the GPU's name, or the CPU's.

    Args:
        kind: ``cpu``, ``cuda`` or ``cuda:N``.
    """
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
