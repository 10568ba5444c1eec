"""What the parts of ``check.py`` share: where they run, a JSON file written after every finding, and a clock."""

from __future__ import annotations

import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch

PRETENDED = os.environ["GPU_CHECK_DEVICE"] == "pretend"
DEVICE = torch.device("cuda" if PRETENDED else os.environ["GPU_CHECK_DEVICE"])
CUDA = DEVICE.type == "cuda" and not PRETENDED
"""Whether there is a GPU: its memory, its clock and its graphs can be asked for."""
TINY = os.environ["GPU_CHECK_TINY"] == "1"
"""Sizes for a dry run."""
OUTPUT, SCRATCH = Path(os.environ["GPU_CHECK_OUTPUT"]), Path(os.environ["GPU_CHECK_SCRATCH"])
SECONDS = float(os.environ["GPU_CHECK_SECONDS"])
"""Of this part; ``check.py`` ends it a little later."""
DATA = Path(os.environ["LTBENCH_DATA"]) if os.environ.get("LTBENCH_DATA") else None
BEGAN = time.monotonic()


def left() -> float:
    """Seconds that this part has left."""
    return SECONDS - (time.monotonic() - BEGAN)


class Notes:
    """Findings of a part, by name, in ``OUTPUT/<part>.json``."""

    def __init__(self, part: str) -> None:
        self.part, self.path = part, OUTPUT / f"{part}.json"
        self.found: dict[str, Any] = {"torch": torch.__version__, "device": _device(), "tiny": TINY, "errors": {}}
        self.ended = False
        self._write()

    def _write(self) -> None:
        self.found |= {"seconds": round(time.monotonic() - BEGAN, 1), "ended": self.ended}
        self.path.write_text(json.dumps(self.found, indent=1, default=str) + "\n")

    def put(self, name: str, value: Any) -> None:
        """Note a finding; ``a/b`` is b within a."""
        place, _, within = name.partition("/")
        if within:
            self.found.setdefault(place, {})[within] = value
        else:
            self.found[place] = value
        self._write()
        click.echo(f"[{self.part} {self.found['seconds']:6.1f} s] {name}: {str(value)[:170]}")

    @contextmanager
    def finding(self, name: str) -> Iterator[None]:
        """An exception is a finding, too, and the part goes on."""
        try:
            yield
        except Exception as error:
            lines = [line.strip() for line in traceback.format_exc().splitlines()]
            ours = [
                line
                for line in lines
                if any(f"/{room}/" in line for room in ("ltrobust_bench", "baselines", "benchmarks"))
            ]
            self.put(f"errors/{name}", f"{type(error).__name__}: {' '.join(str(error).split())[:400]} {ours[-2:]}")
            if "device-side assert" in str(error):  # nothing works in this process any more
                raise

    def end(self) -> None:
        """The part came to its end."""
        self.ended = True
        self._write()


def _device() -> str:
    if PRETENDED:
        return "pretend GPU"
    return torch.cuda.get_device_name(DEVICE) if CUDA else "CPU"


def wait() -> None:
    """Until the device has done what it was given."""
    if CUDA:
        torch.cuda.synchronize()


def timed(work: Callable[[], Any], repeats: int, warm: int = 3) -> dict[str, float]:
    """Median milliseconds with a wait after each, those in which the host gave the device its work, and the range."""
    for _ in range(warm):
        work()
    wait()
    taken, given = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        given.append(time.perf_counter() - began)
        wait()
        taken.append(time.perf_counter() - began)
    return {
        "ms": round(1e3 * statistics.median(taken), 3),
        "host ms": round(1e3 * statistics.median(given), 3),
        "range ms": round(1e3 * (max(taken) - min(taken)), 3),
    }


def main(part: str, work: Callable[[Notes], None]) -> None:
    """Run a part."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    if not PRETENDED:
        notes = Notes(part)
        work(notes)
        notes.end()
        return
    from pretend import pretend_cuda

    with pretend_cuda():
        notes = Notes(part)
        work(notes)
        notes.end()
