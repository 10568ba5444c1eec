"""Curves of training and results of attacks in TensorBoard and in Weights & Biases, extras imported when used."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from ltrobust_bench.errors import UsageError
from ltrobust_bench.progress import Attacked, Epoch, Event, Silent, Started

PROJECT = "ltrobust-bench"


def require(package: str) -> None:
    """See that the package of a tracker, which is an extra of the same name, is installed.

    Raises:
        UsageError: saying what to install.
    """
    if find_spec(package) is None:
        raise UsageError(f"--{package} needs the package {package}: pip install 'ltrobust-bench[{package}]'.")


class Tracker(Silent):
    """Has a run's numbers recorded elsewhere. A tracker that fails is given up with one line, and stops no run.

    A context, which ends what is open.

    Args:
        warn: takes that line.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn, self.failed = warn, False

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._try(lambda: self.close(failed=error is not None))

    def tell(self, event: Event) -> None:
        """Record what belongs to a curve or a result."""
        if isinstance(event, Started):
            self._try(lambda: self.begin(event))
        elif isinstance(event, Epoch):
            values = {f"train/{name}": value for name, value in event.row.items() if name != "epoch"}
            self._try(lambda: self.curve(event.row["epoch"], values | {"train/seconds": event.seconds}))
        elif isinstance(event, Attacked):
            self._try(lambda: self.result(f"accuracy/{event.attack}", event.accuracy))

    def _try(self, record: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            record()
        except Exception as error:  # noqa: BLE001 - whatever another package or its network runs into
            self.failed = True
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.warn(f"{type(self).__name__} failed and is left out from here on: {line}")

    def begin(self, event: Started) -> None:
        """A session of a run begins; its training and its evaluation are one run here."""

    def curve(self, epoch: int, values: Mapping[str, float]) -> None:
        """A point of each curve."""

    def result(self, name: str, value: float) -> None:
        """A number that a run ends with."""

    def close(self, failed: bool) -> None:
        """End what is open."""


class TensorBoard(Tracker):
    """Scalars below a folder, a subfolder for each run: ``tensorboard --logdir FOLDER`` shows them."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        super().__init__(warn)
        self.folder = self.place = folder
        self.writer: Any = None

    def begin(self, event: Started) -> None:
        """In the run's own subfolder from here on."""
        if self.place != self.folder / event.run:
            self.close(failed=False)
            self.place = self.folder / event.run

    def curve(self, epoch: int, values: Mapping[str, float]) -> None:
        """Scalars at this epoch."""
        for name, value in values.items():
            self._open().add_scalar(name, value, epoch)

    def result(self, name: str, value: float) -> None:
        """A scalar at step 0."""
        self._open().add_scalar(name, value, 0)

    def close(self, failed: bool) -> None:
        """Write what is not written yet."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _open(self) -> Any:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.place))
        return self.writer


class WeightsAndBiases(Tracker):
    """A Weights & Biases run for each run; offline unless ``WANDB_MODE`` says otherwise. Its id is the run key's
    beginning, so that sessions of one run come together when they are synchronised.

    Args:
        say: takes the line that says where an offline run lies.
    """

    def __init__(self, warn: Callable[[str], None], say: Callable[[str], None]) -> None:
        super().__init__(warn)
        self.say = say
        self.run: Any = None
        self.started: Started | None = None

    def begin(self, event: Started) -> None:
        """Another run ends the one before it."""
        if self.started is None or self.started.key != event.key:
            self.close(failed=False)
            self.started = event

    def curve(self, epoch: int, values: Mapping[str, float]) -> None:
        """A step of the run's history."""
        self._open().log(dict(values), step=epoch)

    def result(self, name: str, value: float) -> None:
        """A line of the run's summary."""
        self._open().summary[name] = value

    def close(self, failed: bool) -> None:
        """Have everything written, and say where it lies."""
        if self.run is not None:
            folder, offline = Path(self.run.dir).parent, self.run.offline
            self.run.finish(exit_code=int(failed))
            self.run = None
            if offline:
                self.say(f"`wandb sync {folder}` uploads this run to Weights & Biases")

    def _open(self) -> Any:
        if self.run is None:
            import wandb

            about: dict[str, Any] = {}
            if self.started is not None:
                about = {"id": self.started.key[:16], "name": self.started.run, "config": self.started.values()}
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
                resume="allow" if about else None,
                settings=wandb.Settings(silent=True),
                **about,
            )
        return self.run
