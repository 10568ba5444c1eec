"""Many pieces of work on every core."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item], seconds: float, chunk: int = 1) -> list[Result]:
    """``work`` of every item, in their order; by forked processes where that pays and is safe.

    What ``work`` changes may be lost. Results must pickle; ``work`` and the items need not, since a fork has them.

    Args:
        seconds: about how long all of it takes in one process; below ``LEAST`` others are not worth starting.
        chunk: how many items a process takes at once.
    """
    global _job
    items = list(items)
    if seconds < LEAST or len(items) <= chunk or not _safe():
        return [work(item) for item in items]
    import ctypes  # noqa: F401  these two are for _start: here they are imported once
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    import threadpoolctl  # noqa: F401

    _job = work, items
    try:
        with warnings.catch_warnings():
            # From Python 3.12 on about any thread; those of a BLAS library, all there can be here, know of forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            with ProcessPoolExecutor(_cores(), get_context("fork"), _start) as pool:
                return list(pool.map(_one, range(len(items)), chunksize=chunk))
    except (BrokenProcessPool, OSError, ImportError, NotImplementedError):  # killed, or processes cannot be had here
        return [work(item) for item in items]
    finally:
        _job = None


_job: tuple[Callable[[Any], Any], Sequence[Any]] | None = None
"""What the processes inherit."""


def _one(index: int) -> Any:
    assert _job is not None
    work, items = _job
    return work(items[index])


def _start() -> None:
    """A process leaves Ctrl-C to the one that it works for, ends with it, and keeps to one core."""
    import ctypes

    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    threadpool_limits(1)


def _safe() -> bool:
    """Whether this process can be forked: on Linux, without threads that could hold a lock, torch's among them, and not
    itself a part of such work."""
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    return sys.platform == "linux" and _job is None and alone and _cores() > 1


def _cores() -> int:
    return min(len(os.sched_getaffinity(0)), MOST)


LEAST = 0.25
"""Seconds; processes take a twentieth of a second to start."""
MOST = 8
"""Processes. What they hand over is taken in by one."""
