"""Who follows long work: the options that say so, and what they make."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from ltrobust_bench.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])


class HomePath(click.Path):
    """A path; ``~`` is the home folder also where a shell leaves it, as in ``--data-dir=~/data``."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        return super().convert(os.path.expanduser(value), parameter, context)  # noqa: PTH111 - pathlib raises


PATH = HomePath(path_type=Path)
LOGS = [
    click.option("--log-file", type=PATH, metavar="FILE", help="Add what happens to FILE too, as lines with time."),
    click.option("--quiet", "-q", is_flag=True, help="Print only results, warnings and errors."),
    click.option("--verbose", "-v", is_flag=True, help="Print a line for every epoch, checkpoint and attack."),
]
TRACKERS = [
    click.option("--tensorboard", type=PATH, metavar="DIR", help="Curves for TensorBoard in DIR/RUN (an extra)."),
    click.option(
        "--wandb",
        is_flag=True,
        help="Curves for Weights & Biases (an extra); offline unless WANDB_MODE says otherwise.",
    ),
]


@dataclass(frozen=True)
class Follow:
    """Who follows, as it was typed.

    Attributes:
        log_file: file for lines with time.
        quiet: whether only results, warnings and errors are printed.
        verbose: whether every event is printed.
        tensorboard: folder for TensorBoard.
        wandb: whether Weights & Biases follows.
    """

    log_file: Path | None = None
    quiet: bool = False
    verbose: bool = False
    tensorboard: Path | None = None
    wandb: bool = False

    def check(self) -> None:
        """See that it can be done, before anything is.

        Raises:
            UsageError: for options that contradict each other, and extras that are not installed.
        """
        from ltrobust_bench.errors import UsageError
        from ltrobust_bench.tracking.trackers import require

        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose contradict each other; leave one out.")
        if self.tensorboard is not None:
            require("tensorboard")
        if self.wandb:
            require("wandb")


def followed(command: F) -> F:
    """A verb that trains or attacks: it gets the options that say who follows it, as one value ``follow``."""
    return _with(command, [*LOGS, *TRACKERS])


def followed_in_logs(command: F) -> F:
    """A long verb without curves: :func:`followed` without trackers."""
    return _with(command, LOGS)


def _with(command: F, options: Sequence[Callable[[F], F]]) -> F:
    @wraps(command)
    def with_follow(*arguments: Any, **typed: Any) -> Any:
        follow = Follow(**{name: typed.pop(name) for name in Follow.__dataclass_fields__ if name in typed})
        follow.check()
        return command(*arguments, follow=follow, **typed)

    decorated: Any = with_follow
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@contextmanager
def followers(out: Console, follow: Follow) -> Iterator[Progress]:
    """Everybody who follows, as one. What trackers have to say goes to the console and the log file."""
    from ltrobust_bench.progress import OnlyWarnings, RichProgress, Several, Warned
    from ltrobust_bench.tracking.logfile import LogFile
    from ltrobust_bench.tracking.trackers import TensorBoard, Tracker, WeightsAndBiases

    with ExitStack() as stack:
        readers: list[Progress] = []
        if follow.quiet:
            readers.append(OnlyWarnings(out))
        else:
            readers.append(stack.enter_context(RichProgress(out, verbose=follow.verbose)))
        if follow.log_file is not None:
            readers.append(stack.enter_context(LogFile(follow.log_file)))
        said = Several(readers)

        def warn(text: str) -> None:
            said.tell(Warned(text))

        trackers: list[Tracker] = []
        if follow.tensorboard is not None:
            trackers.append(TensorBoard(follow.tensorboard, warn))
        if follow.wandb:
            trackers.append(WeightsAndBiases(warn, said.note))
        yield Several([*readers, *(stack.enter_context(tracker) for tracker in trackers)])
