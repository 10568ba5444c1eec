"""Where and with what a result was made."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ltrobust_bench._version import __version__
from ltrobust_bench.records.schema import Environment


def _git(*arguments: str) -> str | None:
    """Output of git about the checkout this package runs from, or None (an installed wheel, no git)."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def environment(device: str, threads: int, precision: str = "fp32") -> Environment:
    """The environment of this process.

    Args:
        device: name of the processor or accelerator computed on.
        threads: CPU threads used by torch.
        precision: of training; the verdict is always float32 with TF32 off.
    """
    commit, changes = (
        _git("rev-parse", "HEAD"),
        _git("status", "--porcelain", "--", "ltrobust_bench", "baselines"),
    )
    return Environment(
        package_version=__version__,
        git_commit=commit.strip() if commit else None,
        git_dirty=bool(changes.strip()) if changes is not None else None,
        python=platform.python_version(),
        torch=_version("torch") or "",
        pyautoattack=_version("pyautoattack"),
        device=device,
        threads=threads,
        precision=precision,
        tf32=False,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
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
