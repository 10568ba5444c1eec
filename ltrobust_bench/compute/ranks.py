"""The processes that compute one run together, each on a device of its own. One of them is called a rank.

All of them do the same: they draw the same batches and the same noise and hold the same network, optimiser, method and
memories. What passes through a network is divided between them (:mod:`ltrobust_bench.compute.sharing`), and only the
first writes to disk and says something. Alone, which is the rule, everything here does nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from ltrobust_bench.errors import LTBenchError, UsageError

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long ranks wait for each other: the first may wait for somebody else's run, and a rank that dies is noticed at
once by whoever started it."""
LEFT_TO_THE_FIRST = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU")


@dataclass(frozen=True)
class _Place:
    rank: int = 0
    count: int = 1
    store: dist.Store | None = None


_here = _Place()


def count() -> int:
    """How many ranks compute this run."""
    return _here.count


def first() -> bool:
    """Whether this is the rank that writes and speaks."""
    return _here.rank == 0


def part(images: int) -> slice:
    """This rank's part of a batch of so many images."""
    return slice(images * _here.rank // _here.count, images * (_here.rank + 1) // _here.count)


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Be one of the ranks of one run; by ``torchrun``'s variables of the environment it is known who the others are.

    Ranks talk by NCCL on GPUs, by gloo on a CPU. Whatever asks the program to stop is heard by the first rank, which
    can stop at any moment by itself, since all that a run is lies in its hands too; the others end with it.

    Args:
        device: ``cpu``, or ``cuda`` for a GPU for each rank of this machine.

    Yields:
        This rank's device.

    Example: ``with joined(torch.device("cuda")) as device: lt.run("at", "cifar10-lt", device=str(device))``
    """
    global _here
    backend = "gloo"
    if device.type == "cuda":
        device, backend = torch.device("cuda", int(os.environ["LOCAL_RANK"])), "nccl"
        torch.cuda.set_device(device)
    store, rank, ranks = next(dist.rendezvous("env://", timeout=timedelta(minutes=10)))
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=PATIENCE)
    _here = _Place(rank, ranks, store)
    if rank:
        for name in LEFT_TO_THE_FIRST:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        yield device
        dist.destroy_process_group()  # after an error the others may be gone, and this would wait for them
    finally:
        _here = _Place()


def require_devices(wanted: int, device: torch.device) -> None:
    """See that there is a device for each of so many ranks.

    Raises:
        UsageError: saying how many there are.
    """
    if device.type != "cuda" or wanted == 1:
        return
    if device.index is not None:
        raise UsageError(f"{wanted} devices were asked for, and --device {device} names one; use --device cuda.")
    there = torch.cuda.device_count()
    if wanted > there:
        raise UsageError(f"{wanted} devices were asked for, but torch sees {there} CUDA devices here.")


def wait() -> None:
    """Until all ranks are here."""
    if _here.count > 1:
        dist.barrier()


def from_first(find: Callable[[], T]) -> T:
    """What the first rank finds, for all. It is for what can be another thing for each rank, as files can."""
    if _here.count == 1:
        return find()
    found = [find() if first() else None]
    dist.broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]


def after_first(do: Callable[[], T]) -> T:
    """What each rank finds, the first before the others: it may tidy up what it finds."""
    if not first():
        wait()
    found = do()
    if first():
        wait()
    return found


def see_agreement(digest: str) -> None:
    """See that all ranks hold the same.

    Args:
        digest: of what this one holds.

    Raises:
        LTBenchError: if they differ.
    """
    if _here.count == 1:
        return
    found: list[str] = [""] * _here.count
    dist.all_gather_object(found, digest)
    if len(set(found)) > 1:
        raise LTBenchError(
            "the devices of this run hold different weights: some part of the method or the network draws from a "
            "generator that is not seeded alike on all of them; run it on one device."
        )


def speaks() -> bool:
    """Whether this rank is the first to report an error: one that all of them have is said once."""
    if _here.store is None:
        return True
    try:
        return not reported(_here.store)
    except RuntimeError:  # whoever kept the store is gone
        return first()


def reported(store: dist.Store) -> bool:
    """Whether somebody has asked this before, to report an error then."""
    return bool(store.add("reported", 1) > 1)


def lost(error: BaseException) -> bool:
    """Whether an error says that another rank is gone."""
    gloo = _here.count > 1 and isinstance(error, RuntimeError) and "gloo" in str(error)
    return gloo or isinstance(error, dist.DistError)
