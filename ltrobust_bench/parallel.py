"""Many pieces of work on every core."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
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
    items = list(items)
    chunk = max(chunk, -(-len(items) // CHUNKS))
    chunks = [items[start : start + chunk] for start in range(0, len(items), chunk)]
    found = _shared(work, chunks) if seconds >= LEAST and len(chunks) > 1 and _safe() else {}
    # What a process did not hand over is done here: if the work failed, its error is the caller's.
    return [
        result
        for number, some in enumerate(chunks)
        for result in (found[number] if number in found else [work(item) for item in some])
    ]


LEAST = 0.25
"""Seconds; processes take a twentieth of a second to start."""
CHUNKS = 1000
"""Their numbers, four bytes each, fit into a pipe of any size."""
MOST = 8
"""Processes. What they hand over is taken in by one."""


def _safe() -> bool:
    """Whether this process can be forked: on Linux, without threads that could hold a lock, torch's among them, and not
    itself a fork."""
    if sys.platform != "linux" or threading.active_count() > 1 or "torch" in sys.modules:
        return False
    from multiprocessing import parent_process

    return parent_process() is None and _cores() > 1


def _cores() -> int:
    return min(len(os.sched_getaffinity(0)), MOST)


def _shared(work: Callable[[Any], Any], chunks: Sequence[Sequence[Any]]) -> dict[int, list[Any]]:
    """The results of the chunks that forked processes finish, by number.

    The standard library's pools wait forever if a process dies while it hands over megabytes. Here each process has a
    pipe of its own, which ends with it.
    """
    from multiprocessing.connection import wait

    found: dict[int, list[Any]] = {}
    processes: dict[Connection, BaseProcess] = {}
    try:
        # An error: no more pipes or processes are to be had.
        with suppress(OSError), _numbers(len(chunks)) as todo, one_blas_thread(), _forking():
            for _ in range(min(_cores(), len(chunks))):
                _start(processes, lambda pipe: _serve(work, chunks, todo, pipe))
        unfinished = list(processes)
        while unfinished:
            for pipe in cast("list[Connection]", wait(unfinished)):
                try:
                    number, results = pipe.recv()
                    found[number] = results
                except (EOFError, OSError):
                    unfinished.remove(pipe)
    finally:
        _end(processes)
    return found


@contextmanager
def _numbers(count: int) -> Iterator[int]:
    """A pipe to read the numbers from 0 on from, four bytes each."""
    todo, fill = os.pipe()
    try:
        os.write(fill, b"".join(number.to_bytes(4, "little") for number in range(count)))
        os.close(fill)
        yield todo
    finally:
        os.close(todo)


GRACE = 10.0
"""Seconds that a process has to tidy up."""


def _end(processes: dict[Connection, BaseProcess]) -> None:
    deadline = time.monotonic() + GRACE
    for pipe, process in processes.items():
        process.terminate()
        pipe.close()
    for process in processes.values():
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


@contextmanager
def without_collection() -> Iterator[None]:
    """Records and what is made of them are no garbage in cycles; while there are thousands, the collector would look
    through all of them again and again."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS libraries keep to one thread, and so they do in processes that are forked here. Were they told there,
    OpenBLAS would first start the threads that it then does not use; afterwards it does, so once is enough for several
    calls of :func:`each`."""
    try:
        from threadpoolctl import threadpool_info, threadpool_limits
    except ImportError:  # a Python that was built without ctypes; then no process is settled either
        yield
        return
    if all(library["num_threads"] == 1 for library in threadpool_info()):
        yield
    else:
        with threadpool_limits(1):
            yield


def _start(processes: dict[Connection, BaseProcess], serve: Callable[[Connection], None]) -> None:
    from multiprocessing import get_context

    fork = get_context("fork")
    reader, writer = fork.Pipe(duplex=False)

    def begin() -> None:
        # Once nobody else can read from its pipe, a process cannot wait for somebody to read.
        for other in (reader, *processes):
            other.close()
        serve(writer)

    with writer:
        process = fork.Process(target=begin, daemon=True)
        process.start()
    processes[reader] = process


@contextmanager
def _forking() -> Iterator[None]:
    """While processes start, Ctrl-C waits. It never reaches them: the one that they work for ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        with warnings.catch_warnings():
            # From Python 3.12 on about any thread; those of a BLAS library, all there can be here, know of forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(work: Callable[[Any], Any], chunks: Sequence[Sequence[Any]], todo: int, pipe: Connection) -> None:
    """What a process does: chunk after chunk, until none is left, one fails, or it is ended; then what the work began
    is tidied up on the way out."""
    try:
        _settle()
        while number := os.read(todo, 4):
            chunk = int.from_bytes(number, "little")
            pipe.send((chunk, [work(item) for item in chunks[chunk]]))
    finally:
        os._exit(0)  # without a word: who it works for sees what is missing


def _settle() -> None:
    """Have a process end with the one that it works for, and libraries that it loads keep to one core."""
    import ctypes
    from multiprocessing import parent_process

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    parent = parent_process()
    if parent is None or os.getppid() != parent.pid:
        sys.exit()  # it has ended before
    os.environ["OMP_NUM_THREADS"] = "1"
    gc.freeze()  # what is shared stays shared: the collector would write to all of it
