"""Real rows of CIFAR-10-LT in the minutes that are left: ``bash benchmarks/gpu/run.sh rows.py --minutes 5``.

Trains and evaluates one method after the other by ``ltbench run``, asks what is running to stop when the time is over
(everything is kept, and the same call goes on), and puts all but the weights into ``--output``: records, plans, logs
and histories in ``rows.tar``, and with ``--network METHOD`` that finished network in pieces that together are the file
(``cat network-* > model.safetensors``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import click

METHODS = ("at", "reat", "at-bsl", "robal", "trades")
STOPPED = 75
"""Exit code of ``ltbench`` when it was asked to stop."""
GRACE = 40
"""Seconds in which what is running stops."""


def work(command: list[str], seconds: float) -> int:
    """Exit code of a command that is asked to stop when its time is over."""
    process = subprocess.Popen(command)
    try:
        return process.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def bring(runs: Path, results: Path, output: Path) -> None:
    """All but weights and checkpoints, in one file."""
    with tarfile.open(output / "rows.tar", "w") as file:
        for folder in (runs, results):
            for path in sorted(folder.rglob("*")):
                heavy = path.suffix in (".safetensors", ".pt") or path.name.startswith(".")
                if path.is_file() and not heavy:
                    file.add(path, str(Path(folder.name) / path.relative_to(folder)))


def in_pieces(path: Path, output: Path, most: int) -> None:
    """A file as ``network-0``, ``network-1``, ... of at most so many bytes."""
    content = path.read_bytes()
    for i, start in enumerate(range(0, len(content), most)):
        (output / f"network-{i}").write_bytes(content[start : start + most])


@click.command()
@click.option(
    "--method", "methods", multiple=True, default=METHODS, show_default=True, help="Repeatable, in this order."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--limit-test", default=1000, show_default=True, help="First N/10 test images of each class.")
@click.option("--minutes", type=float, required=True)
@click.option("--option", "options", multiple=True, help="Further words for `ltbench run`, one each.")
@click.option("--network", help="Also bring this method's finished network.")
@click.option("--most", default=15.0, show_default=True, help="MB of a piece of it.")
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("gpu-rows/runs"), show_default=True)
@click.option("--results-dir", type=click.Path(path_type=Path), default=Path("gpu-rows/results"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("gpu-rows/out"), show_default=True)
def main(
    methods: tuple[str, ...],
    seed: int,
    limit_test: int,
    minutes: float,
    options: tuple[str, ...],
    network: str | None,
    most: float,
    runs_dir: Path,
    results_dir: Path,
    output: Path,
) -> None:
    """Train and evaluate methods for so many minutes; see the file's head."""
    until = time.monotonic() + 60 * minutes - GRACE
    output.mkdir(parents=True, exist_ok=True)
    for method in methods:
        if time.monotonic() > until:
            break
        command = [sys.executable, "-m", "ltrobust_bench", "run", "--method", method, "--dataset", "cifar10-lt"]
        command += ["--seed", str(seed), "--limit-test", str(limit_test), "--quiet", *options]
        command += ["--runs-dir", str(runs_dir), "--results-dir", str(results_dir)]
        began = time.monotonic()
        code = work(command, until - began)
        how = {0: "finished", STOPPED: "stopped, everything kept"}.get(code, f"failed ({code})")
        click.echo(f"{method}: {how} after {time.monotonic() - began:.0f} s")
    bring(runs_dir, results_dir, output)
    if network is not None:
        for path in runs_dir.glob(f"{network}-cifar10-lt-*/model.safetensors"):
            in_pieces(path, output, int(most * 1e6))
    sizes = {path.name: f"{path.stat().st_size / 1e6:.1f} MB" for path in sorted(output.iterdir())}
    click.echo(f"in {os.path.relpath(output)}: {sizes}")


if __name__ == "__main__":
    main()
