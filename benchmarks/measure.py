"""Timing variants of the same work alternately, and showing the result."""

from __future__ import annotations

import csv
import io
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch

from ltrobust_bench.files import write_text
from ltrobust_bench.machine import device_name


def alternately(variants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each variant: all are run once to warm up, then by turns, so that what else the machine does
    falls on all of them."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, work in variants.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def matrix_rate(device: torch.device, precision: str) -> float:
    """Floating-point operations per second of large matrix products, the median of five."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.rand(size, size, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    return 2 * size**3 / alternately({"mm": lambda: a @ a}, 5)["mm"]


def report(title: str, rows: list[dict[str, Any]], path: Path | None, device: torch.device) -> None:
    """Print rows as a Markdown table with the device that computed them above it, and write them as CSV."""
    click.echo(f"{title}; {device_name(str(device))}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(v) for v in row.values()] for row in rows)]
    click.echo("".join(f"| {' | '.join(line)} |\n" for line in lines))
    if path is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())
        click.echo(f"wrote {path}")
