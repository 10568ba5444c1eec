"""Many pieces of work on every core."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

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
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import active_children, get_context

    _job = work, items
    others = active_children()
    try:
        import ctypes  # noqa: F401  these two are for _start: here they are imported once

        import threadpoolctl  # noqa: F401

        with warnings.catch_warnings():
            # From Python 3.12 on about any thread; those of a BLAS library, all there can be here, know of forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            with ProcessPoolExecutor(_cores(), get_context("fork"), _start, (os.getpid(),)) as pool:
                try:
                    with _held_back():
                        results = pool.map(_one, range(len(items)), chunksize=chunk)
                except BaseException:  # those that were started wait for work that nobody will ever give them
                    _send(signal.SIGKILL, others)
                    raise
                try:
                    return list(results)
                except BaseException:  # what the others do is of no use any more
                    _send(signal.SIGINT, others)
                    raise
    # Killed, or processes or threads cannot be had here; if it was the work's own error, it comes again.
    except (BrokenProcessPool, OSError, ImportError, RuntimeError):
        return [work(item) for item in items]
    finally:
        _job = None


_job: tuple[Callable[[Any], Any], Sequence[Any]] | None = None
"""What the processes inherit."""


_working, _stopped = False, False


def _one(index: int) -> Any:
    global _working
    assert _job is not None
    work, items = _job
    try:
        _working = True
        if _stopped:
            raise KeyboardInterrupt
        return work(items[index])
    finally:
        _working = False


def _stop(*_: object) -> None:
    """What Ctrl-C does to a process: an end of its work, also of what it has yet to do, but never of handing over."""
    global _stopped
    # A second time would interrupt the tidying up.
    first, _stopped = not _stopped, True
    if first and _working:
        raise KeyboardInterrupt


@contextmanager
def _held_back() -> Iterator[None]:
    """Processes are started with ``_stop``; here Ctrl-C waits until all are."""
    global _stopped
    before = signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        again, _stopped = _stopped, False
        if again:
            signal.raise_signal(signal.SIGINT)


def _send(number: int, others: Sequence[BaseProcess]) -> None:
    """A signal to every process of ours but the ``others``."""
    from multiprocessing import active_children

    for process in active_children():
        if process not in others and process.pid is not None:
            with suppress(ProcessLookupError):  # it just ended
                os.kill(process.pid, number)


def _start(parent: int) -> None:
    """A process ends with the one that it works for, and keeps to one core."""
    import ctypes

    from threadpoolctl import threadpool_limits

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it ended before
        os._exit(1)
    threadpool_limits(1)
    gc.freeze()  # what is shared stays shared: the collector would write to all of it


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
