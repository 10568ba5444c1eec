"""Signals that ask a process to stop. Work in steps notes them and stops at its next step's end, everything kept;
anything else stops at once. Only the command line listens to them: whoever imports the package keeps its own handlers.

A scheduler that sends SIGTERM or SIGUSR1 finds the exit code ``REQUEUE``: the same command goes on from there.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

REQUEUE = 75
"""Exit code of a process that was asked to stop: run the same command again (``EX_TEMPFAIL`` of sysexits.h)."""

GRACE_VARIABLE, GRACE = "LTBENCH_GRACE", 25.0
"""Environment variable, and its default: seconds that a step may still take; schedulers kill 30 seconds after the
signal."""

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGQUIT", "SIGXCPU")
AT_ONCE = 2.0
"""Seconds after a signal during which others add nothing: it is on its way already."""


class Stopped(BaseException):
    """The process was asked to stop. No ``Exception``, so that nobody takes it for a failure of the work."""


_asked = ""
"""Name of the signal that was noted."""
_within = 0
"""How many works in steps are going on, one inside the other."""
_last = -AT_ONCE
"""When a signal last raised."""


def stopping() -> bool:
    """Whether this process was asked to stop: keep what there is now, then call :func:`stop_if_asked`."""
    return bool(_asked)


def stop_if_asked(*, kept: bool = False) -> None:
    """The end of a step.

    Args:
        kept: what was done so far is on the disk.

    Raises:
        Stopped: if this process was asked to stop.
    """
    if _asked:
        what = "Everything is kept" if kept else "Nothing is lost but the work in hand"
        raise Stopped(f"Stopped by {_asked}. {what}: the same command goes on from here.")


@contextmanager
def in_steps() -> Iterator[None]:
    """Work that calls :func:`stop_if_asked` at the end of each step; until then a signal is only noted, for as long as
    the grace period lasts."""
    global _within
    _within += 1
    try:
        yield
        stop_if_asked()
    finally:
        _within -= 1
        if _within == 0 and _asked:
            _alarm(0)


def grace() -> float:
    """Seconds that a step may still take after a signal."""
    try:
        return max(0.1, float(os.environ[GRACE_VARIABLE]))
    except (KeyError, ValueError):
        return GRACE


@contextmanager
def listening(*, ends: bool) -> Iterator[None]:
    """Have signals stop this process as this module says; nothing in a thread that is not the main one, which is told
    of none. A signal that is ignored, as ``nohup`` has SIGHUP, stays so.

    Args:
        ends: the process ends afterwards. Signals are ignored then, so that none changes its exit code; else they do
            what they did before.
    """
    global _asked
    if current_thread() is not main_thread():
        yield
        return
    handlers = {"SIGINT": _interrupt, "SIGALRM": _too_late, **dict.fromkeys(SIGNALS, _note)}
    previous: dict[int, Any] = {}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)  # other systems have fewer
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if ends else handler)
        _asked = ""


def _note(number: int, frame: FrameType | None) -> None:
    global _asked
    first, _asked = not _asked, _asked or signal.Signals(number).name
    if _within and first:
        _alarm(grace())
    elif not _within and _due():
        stop_if_asked()


def _too_late(number: int, frame: FrameType | None) -> None:
    raise Stopped(
        f"Stopped by {_asked}, in the middle of a step that was not over after {grace():g} seconds ({GRACE_VARIABLE}). "
        "Nothing is lost but the work since the last checkpoint: the same command goes on from there."
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _due():
        raise KeyboardInterrupt


def _due() -> bool:
    """Whether a signal is to raise: it is not while an earlier one's exception is on its way."""
    global _last
    now, before = time.monotonic(), _last
    if now - before < AT_ONCE:
        return False
    _last = now
    return True


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
