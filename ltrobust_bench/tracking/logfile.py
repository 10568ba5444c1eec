"""A log file for people: lines with time, through Python's ``logging``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ltrobust_bench.errors import UsageError
from ltrobust_bench.files import make_folder
from ltrobust_bench.progress import Event, Failed, Silent, Warned
from ltrobust_bench.tracking.runlog import reason

LOGGER = logging.getLogger("ltrobust_bench")


class LogFile(Silent):
    """Adds a line with its time to a file for every note and event, and now and then for how far work is.

    A context: the error that ends it is its last line. A line that cannot be written is lost, and stops nothing.

    Args:
        path: file; lines are added to one that is there.
        period: seconds between lines of how far work is.

    Raises:
        UsageError: if the file cannot be written.
    """

    def __init__(self, path: Path, period: float = 60.0) -> None:
        make_folder(path.parent)
        try:
            self.handler = logging.FileHandler(path, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write to {path}: {error.strerror or error}; name another --log-file.") from None
        form = "%(asctime)s %(levelname)s %(message)s"
        self.handler.setFormatter(logging.Formatter(form, datefmt="%Y-%m-%d %H:%M:%S%z"))
        self.handler.handleError = lambda record: None  # type: ignore[method-assign]
        self.period = period
        self.what, self.total, self.done, self.last = "", 0, 0, time.monotonic()

    def __enter__(self) -> LogFile:
        LOGGER.addHandler(self.handler)
        LOGGER.setLevel(logging.INFO)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.tell(Failed(reason(error)))
        LOGGER.removeHandler(self.handler)
        with suppress(OSError):
            self.handler.close()

    def start(self, what: str, total: int, done: int = 0) -> None:
        """A new piece of work."""
        self.what, self.total, self.done, self.last = what, total, done, time.monotonic()

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        """A line, if the last one is long enough ago."""
        self.done += units
        now = time.monotonic()
        if now - self.last >= self.period:
            self.last = now
            self.note(f"{self.what}: {self.done}/{self.total}. {detail() if detail else ''}".rstrip())

    def note(self, text: str) -> None:
        """A line."""
        LOGGER.info("%s", text)

    def tell(self, event: Event) -> None:
        """A line, of a level that shows what matters."""
        level = logging.ERROR if isinstance(event, Failed) else logging.INFO
        LOGGER.log(logging.WARNING if isinstance(event, Warned) else level, "%s", event)
