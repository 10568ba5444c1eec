"""The machine: system, torch and its devices, folders, environment."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ltrobust_bench.doctor.findings import Findings
from ltrobust_bench.machine import device_name, usable_cores

OURS = ("LTBENCH_CACHE", "LTBENCH_DATA", "LTBENCH_RESULTS", "LTBENCH_RUNS")
OTHERS = ("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "TORCH_HOME")
OTHERS_BEGIN = ("PYTORCH_", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT")
LITTLE = 1 << 30
"""Bytes on a disk that a run may not fit into: a checkpoint of a large network, twice."""


def system(found: Findings) -> None:
    """Operating system, processor, memory."""
    found.fact("system", platform.platform())
    found.fact("processor", device_name("cpu"))
    found.fact("cores", f"{usable_cores()} usable of {os.cpu_count()}")
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    free = os.sysconf("SC_AVPHYS_PAGES") * size
    found.fact("memory", f"{pages * size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free")


def torch(found: Findings) -> None:
    """Torch and its devices, and whether each computes; and whether the driver knows a GPU that torch does not see."""
    said, driver = _ask_torch(), _driver()
    if "error" in said:
        found.problem(f"torch cannot be used ({said['error']}): install torch and torchvision again (pytorch.org).")
        return
    for name in ("version", "torchvision", "CUDA", "CPU capability", "threads"):
        found.fact(name, said[name])
    found.fact("driver", driver or "no nvidia-smi")
    found.fact("devices", ", ".join(said["faults"]))
    for name, gpu in said["gpus"].items():
        found.fact(name, gpu)
    for name, fault in said["faults"].items():
        if fault:
            found.problem(f"torch does not compute on {name} ({fault}): see driver and torch's build.")
    if driver and not said["gpus"]:
        found.problem(
            f"there is a GPU (driver {driver}), and torch {said['version']} sees none: install a build for its CUDA, "
            f"or see CUDA_VISIBLE_DEVICES."
        )
    if said["threads"] > usable_cores():
        found.problem(
            f"torch takes {said['threads']} threads on {usable_cores()} cores, which slows it down: set "
            f"OMP_NUM_THREADS or --threads to {usable_cores()} or less."
        )


def _ask_torch() -> dict[str, Any]:
    """What torch says of itself, in a process of its own; ``error``: that it cannot be used, in one line."""
    try:
        program = [sys.executable, "-m", "ltrobust_bench.doctor.ask_torch"]
        done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    if done.returncode == 0:
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    said = done.stderr.strip().splitlines()
    return {"error": said[-1] if said else f"Python ended with code {done.returncode}"}


def _driver() -> str:
    """Version of the NVIDIA driver; empty if there is none."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


def folders(found: Findings, runs_dir: Path, results_dir: Path) -> None:
    """Where runs, results, cache and temporary files go: whether they can, and how much space is left."""
    from ltrobust_bench.records.cache import cache_folder

    places = {
        "runs": (runs_dir, "--runs-dir or LTBENCH_RUNS"),
        "results": (results_dir, "--results-dir or LTBENCH_RESULTS"),
        "cache": (cache_folder(), "LTBENCH_CACHE"),
        "temporary files": (Path(tempfile.gettempdir()), "TMPDIR"),
    }
    for name, (place, option) in places.items():
        there = place.absolute()
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free
        new = "" if there == place.absolute() else ", made when needed"
        reason = _not_writable(there)
        found.fact(name, f"{place}: {'NOT ' if reason else ''}writable{new}, {free / 2**30:.1f} GiB free")
        if reason:
            found.problem(f"{name} cannot be written to {place} ({reason}): name another folder with {option}.")
        elif free < LITTLE:
            found.problem(f"{name}: only {free / 2**20:.0f} MiB are free in {place}; make room, or use {option}.")


def _not_writable(folder: Path) -> str:
    """Why nothing can be written into a folder; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def environment(found: Findings) -> None:
    """Variables that this package, torch and trackers heed."""
    for name in sorted(os.environ):
        if name.startswith(("LTBENCH_", *OTHERS_BEGIN)) or name in OTHERS:
            found.fact(name, os.environ[name])
        if name.startswith("LTBENCH_") and name not in OURS:
            near = get_close_matches(name, OURS, n=1, cutoff=0.8)
            if near:
                found.problem(f"the variable {name} means nothing here: did you mean {near[0]}?")
