"""Progress of long work: a bar with time left on a terminal, a line now and then in a log, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol


class Progress(Protocol):
    """What long work reports to."""

    def start(self, what: str, total: int, done: int = 0) -> None:
        """A new piece of work of ``total`` units, ``done`` of which are already there."""

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        """``units`` more are done; ``detail`` is called only when something is shown."""

    def note(self, text: str) -> None:
        """A line worth keeping."""


class Silent:
    """Reports nothing."""

    def start(self, what: str, total: int, done: int = 0) -> None: ...

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None: ...

    def note(self, text: str) -> None: ...


class Named(Silent):
    """Passes the progress of one part of a longer work on under the part's name, and keeps no lines."""

    def __init__(self, inner: Progress, name: str) -> None:
        self.inner, self.name = inner, name

    def start(self, what: str, total: int, done: int = 0) -> None:
        self.inner.start(self.name, total, done)

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        self.inner.advance(units, detail)


class RichProgress:
    """A bar with time left on a terminal; elsewhere a line at most every ``period`` seconds.

    Args:
        console: rich console to draw on.
        period: seconds between lines, and between calls of ``detail``.
    """

    def __init__(self, console: Any, period: float = 20.0) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self.console = console
        self.bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.period = 0.5 if console.is_terminal else period
        self.task: Any = None
        self.what, self.total, self.done, self.first = "", 0, 0, 0
        self.began = self.shown = time.monotonic()

    def __enter__(self) -> RichProgress:
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, trace)

    def start(self, what: str, total: int, done: int = 0) -> None:
        """A new piece of work; the bar of the last one goes."""
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(what, total=total, completed=done, detail="")
        self.what, self.total, self.done, self.first = what, total, done, done
        self.began = self.shown = time.monotonic()

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        """Move the bar, or print a line if the last one is long enough ago."""
        self.done += units
        now = time.monotonic()
        self.bar.update(self.task, advance=units)
        if now - self.shown < self.period:
            return
        self.shown = now
        text = detail() if detail else ""
        self.bar.update(self.task, detail=text)
        if not self.console.is_terminal:
            left = (now - self.began) / max(self.done - self.first, 1) * (self.total - self.done)
            self.console.print(f"{self.what}: {self.done}/{self.total}, {duration(left)} left. {text}".rstrip())

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``42 s``, ``3.5 min``, ``7.1 h``, ``2.3 days``."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}" if unit == 1 else f"{seconds / unit:.1f} {name}"
    return f"{seconds / 86400:.1f} days"
