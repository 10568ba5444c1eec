"""Several devices for one run: ``--devices``, or ``torchrun``. Imports torch when a command is called only."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

GRACE = 20.0
"""Seconds that the others have to end by themselves when one has failed; a GPU's library may wait for it for ever."""
PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def started() -> int:
    """How many ranks were started together with this process, by ``torchrun`` or by ``--devices``; 1: it is alone."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def listens() -> bool:
    """Whether this process only follows the first rank, which alone writes and speaks."""
    return started() > 1 and os.environ["RANK"] != "0"


def on_devices(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option --devices for a command that has --device and --threads."""

    @click.option(
        "--devices",
        type=click.IntRange(1),
        help="Share each run between so many GPUs, or processes on a CPU; the same run, whatever their number.",
    )
    @click.pass_context
    @functools.wraps(command)
    def shared(ctx: click.Context, *, devices: int | None, device: str, **given: Any) -> Any:
        alone = devices in (None, 1) and started() == 1
        if alone:
            return command(device=device, **given)
        from ltrobust_bench.compute.device import choose_device
        from ltrobust_bench.compute.ranks import joined, require_devices
        from ltrobust_bench.errors import UsageError

        where = choose_device(device)
        if started() == 1:
            assert devices is not None
            require_devices(devices, where)
            return start([sys.executable, "-m", "ltrobust_bench", *ctx.find_root().obj], devices)
        if devices not in (None, started()):
            raise UsageError(f"--devices {devices} disagrees with the {started()} processes that were started.")
        require_devices(int(os.environ.get("LOCAL_WORLD_SIZE", started())), where)
        with joined(where) as own, _one_voice():
            return command(device=str(own), **given)

    return shared


def repeatable(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option --deterministic for a command that has --device."""

    @click.option(
        "--deterministic",
        "repeats",
        is_flag=True,
        help="On a GPU: only kernels that repeat bit for bit; slower. A CPU with the same --threads repeats anyway.",
    )
    @functools.wraps(command)
    def repeating(*, repeats: bool, device: str, **given: Any) -> Any:
        if not repeats:
            return command(device=device, **given)
        from ltrobust_bench.compute.device import choose_device
        from ltrobust_bench.compute.precision import deterministic

        with deterministic(choose_device(device)):
            return command(device=device, **given)

    return repeating


@contextmanager
def _one_voice() -> Iterator[None]:
    """One line about an error, whether all ranks have it or one of them, which the others then miss.

    Raises:
        click.exceptions.Exit: instead of an error that another rank reports.
    """
    from ltrobust_bench.compute import ranks
    from ltrobust_bench.errors import LTBenchError

    try:
        yield
    except BaseException as error:
        if not ranks.speaks():
            raise click.exceptions.Exit(getattr(error, "exit_code", 1)) from None
        if ranks.lost(error):
            raise LTBenchError(
                "the process of another device ended; the same command goes on from the last checkpoint."
            ) from None
        raise


def start(command: list[str], devices: int) -> int:
    """Run a command as so many ranks on this machine, as ``torchrun`` does; the exit code of the first.

    The ranks are a process group each, so that a terminal's Ctrl-C comes here, and from here to the first rank only,
    which stops as one process does.

    Raises:
        LTBenchError: if a rank was killed, and no other could say so.
    """
    from torch.distributed import TCPStore

    from ltrobust_bench.compute.ranks import reported
    from ltrobust_bench.errors import LTBenchError

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with _signals_to(processes):
            for rank in range(devices):
                environment = _environment(rank, devices, store.port)
                processes.append(subprocess.Popen(command, env=environment, process_group=0))
            failed = _until_ended(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    code = processes[0].returncode
    if failed is None or code >= 0:
        return int(code)
    if reported(store):
        return 1
    how = processes[failed].returncode
    raise LTBenchError(
        f"the process of device {failed} ended ({signal.Signals(-how).name if how < 0 else f'exit code {how}'}); the "
        "same command goes on from the last checkpoint."
    )


def _environment(rank: int, devices: int, port: int) -> dict[str, str]:
    """What ``torchrun`` tells the process of a rank."""
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", max(1, torch.get_num_threads() // devices))
    told = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": devices,
        "LOCAL_WORLD_SIZE": devices,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": True,  # the store where ranks find each other is the caller's
        "OMP_NUM_THREADS": threads,
    }
    return os.environ | {name: str(value) for name, value in told.items()}


@contextmanager
def _signals_to(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Whatever asks this process to stop goes to the first of others."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        if processes:
            processes[0].send_signal(number)

    before = {number: signal.signal(number, pass_on) for name in PASSED_ON if (number := getattr(signal, name, None))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _until_ended(processes: list[subprocess.Popen[bytes]]) -> int | None:
    """Until all have ended, and when one has failed for a moment longer; one that failed, None if all went well."""
    limit = float("inf")
    while True:
        codes = [process.poll() for process in processes]
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None:
            limit = min(limit, time.monotonic() + GRACE)
        if None not in codes or time.monotonic() > limit:
            return failed
        time.sleep(0.05)
