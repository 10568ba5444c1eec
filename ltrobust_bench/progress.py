"""Progress of long work: what is done, said to whoever follows.

Long work reports to one :class:`Progress`: how far it is (``start``, ``advance``), lines for people (``note``), and
events that programs read too (``tell``). Whoever follows it, a bar, a log, a tracker, is a :class:`Progress`, and
:class:`Several` hands everything to all of them. A follower builds on :class:`Silent` and writes the methods it needs::

    class Heartbeat(Silent):
        def advance(self, units=1, detail=None):
            self.file.touch()

    run("at", "digits-lt", progress=Several([RichProgress(console), Heartbeat()]))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Protocol


@dataclass(frozen=True)
class Event:
    """Something that happened; as text it is a line for people, and ``values`` are its fields for programs."""

    @property
    def name(self) -> str:
        """What logs call it: ``started``, ``epoch``, ..."""
        return type(self).__name__.lower()

    def values(self) -> dict[str, Any]:
        """Its fields; seconds to the millisecond."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return found | ({"seconds": round(found["seconds"], 3)} if "seconds" in found else {})


@dataclass(frozen=True)
class Started(Event):
    """A session of training or attacking a run begins.

    Attributes:
        run: name of its run folder.
        key: its run key.
        work: ``training`` or ``evaluation``.
        method, plugins, dataset, seed: of the run.
        code: commit, uncommitted changes and digests of what computes.
        device: the processor's or accelerator's name.
        threads: CPU threads.
        versions: of Python and packages.
        host, pid: where.
    """

    run: str
    key: str
    work: str
    method: str
    plugins: list[str]
    dataset: str
    seed: int
    code: dict[str, Any]
    device: str
    threads: int
    versions: dict[str, str]
    host: str
    pid: int

    def __str__(self) -> str:
        return f"{self.work} of {self.run} begins on {self.device}, {self.threads} threads"


@dataclass(frozen=True)
class Resumed(Event):
    """A session goes on where an earlier one stopped: ``epoch 3 of 10``."""

    after: str

    def __str__(self) -> str:
        return f"going on after {self.after}"


@dataclass(frozen=True)
class Epoch(Event):
    """An epoch of training is finished: its row of ``training.csv``, and the seconds it took."""

    row: Mapping[str, Any]
    seconds: float

    def values(self) -> dict[str, Any]:
        """The row's columns, and the seconds."""
        return {**self.row, "seconds": round(self.seconds, 3)}

    def __str__(self) -> str:
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.row.items())
        return f"{', '.join(shown)}, {duration(self.seconds)}"


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint was written."""

    path: str
    seconds: float

    def __str__(self) -> str:
        return f"saved {self.path} in {self.seconds:.2f} s"


@dataclass(frozen=True)
class Attacked(Event):
    """A stage of an attack is finished.

    Attributes:
        attack: the attack, or ``attack/stage`` where there are several; ``clean``: the images themselves.
        images: attacked in this stage, also by earlier sessions.
        left: images that withstand the attack so far.
        accuracy: their share of all test images, in [0, 1].
        seconds: in this session.
    """

    attack: str
    images: int
    left: int
    accuracy: float
    seconds: float

    def __str__(self) -> str:
        left = f"{self.left} of {self.images} images left ({self.accuracy:.1%})"
        return f"{self.attack}: {left}, {duration(self.seconds)}"


@dataclass(frozen=True)
class Noted(Event):
    """A line for people, in logs of events."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Warned(Noted):
    """A line that must not be missed."""


@dataclass(frozen=True)
class Failed(Event):
    """Work ended with an error, or was interrupted."""

    reason: str

    def __str__(self) -> str:
        return f"failed: {self.reason}"


@dataclass(frozen=True)
class Ended(Event):
    """A session is finished, and what it was to make is there."""

    work: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.work} is finished, {duration(self.seconds)} in this session"


class Progress(Protocol):
    """What long work reports to.

    Attributes:
        shown: whether a person looks on, so that an estimate of what is to come is worth a second.
    """

    shown: bool

    def start(self, what: str, total: int, done: int = 0) -> None:
        """A new piece of work of ``total`` units, ``done`` of which are already there."""

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        """``units`` more are done; ``detail`` is called only when something is shown."""

    def note(self, text: str) -> None:
        """A line worth keeping."""

    def tell(self, event: Event) -> None:
        """Something happened."""


class Silent:
    """Reports nothing; what a follower of some of it builds on."""

    shown = False

    def start(self, what: str, total: int, done: int = 0) -> None: ...

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None: ...

    def note(self, text: str) -> None: ...

    def tell(self, event: Event) -> None: ...


class Several:
    """Hands everything to several followers, in their order."""

    def __init__(self, followers: Sequence[Progress]) -> None:
        self.followers = followers
        self.shown = any(follower.shown for follower in followers)

    def start(self, what: str, total: int, done: int = 0) -> None:
        for follower in self.followers:
            follower.start(what, total, done)

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        for follower in self.followers:
            follower.advance(units, detail)

    def note(self, text: str) -> None:
        for follower in self.followers:
            follower.note(text)

    def tell(self, event: Event) -> None:
        for follower in self.followers:
            follower.tell(event)


class Named(Silent):
    """Passes the progress of one part of a longer work on under the part's name, and keeps no lines."""

    def __init__(self, inner: Progress, name: str) -> None:
        self.inner, self.name = inner, name

    def start(self, what: str, total: int, done: int = 0) -> None:
        self.inner.start(self.name, total, done)

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        self.inner.advance(units, detail)


class OnlyWarnings(Silent):
    """Prints warnings on a rich console, and nothing else."""

    def __init__(self, console: Any) -> None:
        self.console = console

    def tell(self, event: Event) -> None:
        """A warning stands out."""
        if isinstance(event, Warned):
            self.console.print(str(event), style="yellow")


class RichProgress:
    """A bar with time left on a terminal; elsewhere a line at most every ``period`` seconds.

    Args:
        console: rich console to draw on.
        period: seconds between lines, and between calls of ``detail``.
        verbose: a line for every event too, not for warnings only.
    """

    shown = True

    def __init__(self, console: Any, period: float = 20.0, verbose: bool = False) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self.console, self.verbose = console, verbose
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
        self.began = self.last = time.monotonic()

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
        self.began = self.last = time.monotonic()

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        """Move the bar, or print a line if the last one is long enough ago."""
        self.done += units
        now = time.monotonic()
        self.bar.update(self.task, advance=units)
        if now - self.last < self.period:
            return
        self.last = now
        text = detail() if detail else ""
        self.bar.update(self.task, detail=text)
        if not self.console.is_terminal:
            left = (now - self.began) / max(self.done - self.first, 1) * (self.total - self.done)
            self.console.print(f"{self.what}: {self.done}/{self.total}, {duration(left)} left. {text}".rstrip())

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text)

    def tell(self, event: Event) -> None:
        """A warning stands out; other events are lines if it is verbose."""
        if isinstance(event, Warned):
            OnlyWarnings(self.console).tell(event)
        elif self.verbose:
            self.console.print(str(event), style="dim")


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``42 s``, ``3.5 min``, ``7.1 h``, ``2.3 days``."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}" if unit == 1 else f"{seconds / unit:.1f} {name}"
    return f"{seconds / 86400:.1f} days"
