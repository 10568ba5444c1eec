"""A run folder is held by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ltrobust_bench.compute import ranks
from ltrobust_bench.errors import BusyError
from ltrobust_bench.files import make_folder, remove_leftovers
from ltrobust_bench.progress import Progress


@contextmanager
def locked(folder: Path, waiting: Progress | None = None) -> Iterator[None]:
    """Hold a run folder alone, without what a killed process left half-written in it. Of several ranks the first holds
    it for all.

    Args:
        waiting: wait while another process works in it, and say so there; None: do not wait.

    Raises:
        BusyError: if another process works in it.
    """
    if not ranks.first():
        ranks.wait()
        yield
        return
    make_folder(folder)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if waiting is None:
            raise BusyError(f"another process is working in {folder}; wait for it, or choose another seed.") from None
        waiting.note(f"waiting for another process that works in {folder}")
        lock.acquire()
    try:
        remove_leftovers(folder)
        ranks.wait()
        yield
    finally:
        lock.release()
