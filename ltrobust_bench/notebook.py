"""What notebooks show: results as small tables, and the progress of long work."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ltrobust_bench.progress import Event, Progress, Silent, Warned, duration

PERIOD = 0.5
"""Seconds between changes of what is shown."""


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """An HTML table, everything escaped; the first column is text, the others are numbers."""
    cells = [
        "".join(
            f"<td style='text-align:{'left' if i == 0 else 'right'}'>{html.escape(v)}</td>" for i, v in enumerate(row)
        )
        for row in rows
    ]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    below = f"<div><small>{html.escape(note)}</small></div>" if note else ""
    return f"<div><b>{html.escape(title)}</b></div><table><tr>{heads}</tr>{body}</table>{below}"


ACCURACIES = ("balanced", "head", "medium", "tail", "worst_class")


def accuracies(title: str, metrics: Mapping[str, Any], note: str = "") -> str:
    """Accuracies in per cent under each attack, as an HTML table."""
    rows = []
    for name, found in metrics.items():
        values = [float(getattr(found, column)) for column in ACCURACIES]
        rows.append([name, *("-" if value != value else f"{100 * value:.1f}" for value in values)])
    return table(title, ["", *(column.replace("_", " ") for column in ACCURACIES)], rows, note or "accuracy in %")


def in_short(metrics: Mapping[str, Any]) -> str:
    """``clean 96.2 %, union 59.2 % (tail 37.8 %)``."""
    clean, union = metrics["clean"], metrics["union"]
    tail = "" if union.tail != union.tail else f" (tail {100 * float(union.tail):.1f} %)"
    return f"clean {100 * float(clean.balanced):.1f} %, union {100 * float(union.balanced):.1f} %{tail}"


def usual_progress(given: Progress | None) -> Progress:
    """What was given; without it, what a notebook shows, and elsewhere nothing."""
    if given is not None:
        return given
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return Shown(sys.modules["IPython"].display.display) if hasattr(shell, "kernel") else Silent()


class Shown(Silent):
    """Progress in a notebook's cell: one line that changes, and below it the lines worth keeping.

    Args:
        display: IPython's, called with an object and ``display_id=True``; its handle has ``update``.
    """

    shown = True

    def __init__(self, display: Callable[..., Any]) -> None:
        self.display, self.handle = display, None
        self.what, self.total, self.done, self.first = "", 0, 0, 0
        self.began = self.last = time.monotonic()

    def start(self, what: str, total: int, done: int = 0) -> None:
        """A new piece of work takes over the line."""
        self.what, self.total, self.done, self.first = what, total, done, done
        self.began = time.monotonic()
        self._say("")

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        """The line changes, if the last change is long enough ago."""
        self.done += units
        if time.monotonic() - self.last >= PERIOD or self.done >= self.total:
            self._say(detail() if detail else "")

    def _say(self, detail: str) -> None:
        self.last = time.monotonic()
        left = (self.last - self.began) / max(self.done - self.first, 1) * (self.total - self.done)
        ahead = f", {duration(left)} left" if self.done > self.first and self.done < self.total else ""
        line = Line(f"{self.what}: {self.done}/{self.total}{ahead}. {detail}".rstrip(". "))
        if self.handle is None:
            self.handle = self.display(line, display_id=True)
        else:
            self.handle.update(line)

    def note(self, text: str) -> None:
        """A line that stays."""
        self.display(Line(text))

    def tell(self, event: Event) -> None:
        """Warnings stay, too."""
        if isinstance(event, Warned):
            self.display(Line(f"warning: {event}"))


class Line:
    """A line of text, in a notebook as in a terminal."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text
