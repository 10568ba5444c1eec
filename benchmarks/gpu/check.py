"""Is the CUDA path right, and how fast is it? Less than ten minutes on a GPU: ``python benchmarks/gpu/check.py``.

Five parts, each a process with a time limit and a JSON file of its own below ``--output``; a part that is cut short
leaves what it had found. ``--device cpu --tiny`` or ``--device pretend --tiny`` (``tests/device``) is a dry run: does
each part come to its end? Exit code 1: something was wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOUND_IN = [ROOT, ROOT / "benchmarks", HERE, ROOT / "tests" / "device"]
"""Where parts import from."""
PARTS = {"everything": 100, "agreement": 70, "steps": 150, "training": 110, "autoattack": 90}
"""Seconds that each part may take on a GPU; 520 in all, 8 minutes, of which the first two run side by side."""
BESIDE = ("everything", "agreement")
"""Bound by the host and timed by nobody: they run at the same time. The others have the device alone."""
SHOWN = 900
"""Characters of a finding in the summary; the JSON files hold all."""


def begin(part: str, seconds: float, environment: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
    """A part as a process, its output in a file."""
    log = (output / f"{part}.log").open("wb")
    given = environment | {"GPU_CHECK_SECONDS": str(seconds)}
    command = [sys.executable, "-W", "ignore", str(HERE / f"{part}.py")]
    return subprocess.Popen(command, env=given, stdout=log, stderr=subprocess.STDOUT)


def finish(processes: dict[str, subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait for parts, and end those that take longer."""
    until = time.monotonic() + seconds
    for part, process in processes.items():
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            click.echo(f"{part} was ended after its time")


def summary(output: Path, parts: list[str]) -> bool:
    """Print what was found, errors first, and whether there was none."""
    sound = True
    for part in parts:
        path = output / f"{part}.json"
        found = json.loads(path.read_text()) if path.exists() else {"errors": {"start": "the part left nothing"}}
        ended = found.pop("ended", False)
        about = ", ".join(str(found.pop(name, "?")) for name in ("device", "torch"))
        click.echo(f"## {part}: {about}, {found.pop('seconds', '?')} s{'' if ended else ', CUT SHORT'}")
        errors = found.pop("errors", {})
        sound &= ended and not errors and not found.get("outside the limits")
        for name, said in errors.items():
            click.echo(f"ERROR {name}: {said}")
        if not ended and (output / f"{part}.log").exists():
            click.echo((output / f"{part}.log").read_text(errors="replace")[-1500:])
        for name, value in found.items():
            if name not in ("tiny", "verdicts"):
                click.echo(f"{name}: {json.dumps(value)[:SHOWN]}")
    return sound


@click.command()
@click.option("--device", type=click.Choice(["cuda", "cpu", "pretend"]), default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="Sizes for a dry run.")
@click.option(
    "--part", "parts", type=click.Choice(list(PARTS)), multiple=True, default=tuple(PARTS), help="Repeatable."
)
@click.option("--scale", type=float, default=1.0, show_default=True, help="Times the parts' seconds.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("gpu-check"), show_default=True)
def main(device: str, tiny: bool, parts: tuple[str, ...], scale: float, output: Path) -> None:
    """Check the CUDA path and time it; see the file's head."""
    output.mkdir(parents=True, exist_ok=True)
    scratch = output / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([*map(str, FOUND_IN), os.environ.get("PYTHONPATH", "")]),
        "GPU_CHECK_DEVICE": device,
        "GPU_CHECK_TINY": str(int(tiny)),
        "GPU_CHECK_OUTPUT": str(output.resolve()),
        "GPU_CHECK_SCRATCH": str(scratch.resolve()),
    }
    chosen = [part for part in PARTS if part in parts]
    for path in (output / f"{part}.json" for part in chosen):
        path.unlink(missing_ok=True)
    together = [part for part in chosen if part in BESIDE]
    for group in ([together] if together else []) + [[part] for part in chosen if part not in BESIDE]:
        began = time.monotonic()
        processes = {part: begin(part, scale * PARTS[part], environment, output) for part in group}
        finish(processes, scale * max(PARTS[part] for part in group) + 10)
        click.echo(f"{' and '.join(group)}: {time.monotonic() - began:.0f} s")
    shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(0 if summary(output, chosen) else 1)


if __name__ == "__main__":
    main()
