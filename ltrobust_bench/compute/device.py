"""Where to compute."""

from __future__ import annotations

import os
import platform
from typing import Literal

import torch

from ltrobust_bench.errors import UsageError
from ltrobust_bench.machine import device_name, version_of
from ltrobust_bench.plan.code import code_of
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.progress import Started

NAMED = ("torch", "numpy", "pyautoattack")
"""Packages whose versions a session's first event names."""


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` (a CUDA GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: if CUDA is asked for and absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(
            f"--device {name} was asked for, but torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices here; use --device cpu."
        )
    return device


def started(run: RunSection, work: Literal["training", "evaluation"], device: torch.device) -> Started:
    """The event with which a session of work on a run begins."""
    code = code_of(run, work)
    return Started(
        run=run.folder_name(),
        key=run.key(),
        work=work,
        method=run.method,
        plugins=list(run.plugins),
        dataset=run.dataset,
        seed=run.seed,
        code=code.model_dump(exclude={"work"}),
        device=device_name(str(device)),
        threads=torch.get_num_threads(),
        versions={"python": platform.python_version(), **{name: version_of(name) or "" for name in NAMED}},
        host=platform.node(),
        pid=os.getpid(),
    )
