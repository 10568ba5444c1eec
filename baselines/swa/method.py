"""SWA (Izmailov et al., UAI 2018): what is deployed is an average of the networks at the ends of epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ltrobust_bench.api import Network, Plugin, TrainInfo
from ltrobust_bench.longtail import average_into


class AveragedOverEpochs(Plugin):
    """The average of all weights and buffers at the ends of epochs; it takes the network's place at the end of the
    budget. Counters are averaged as real numbers.

    Args:
        epochs: length of the budget.
        start: share of it after which epochs are averaged.
        decay: a <- decay a + (1 - decay) w, from a = w on; None: every epoch counts the same.
    """

    def __init__(self, epochs: int, start: float, decay: float | None) -> None:
        self.epochs, self.start, self.decay = epochs, start, decay
        self.count, self.average = 0, dict[str, Tensor]()

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        if epoch > self.start * self.epochs:
            now = network.state_dict()
            if self.average:
                average_into(self.average, now, self.count / (self.count + 1) if self.decay is None else self.decay)
            else:
                self.average = {n: v.clone() if v.is_floating_point() else v.double() for n, v in now.items()}
            self.count += 1
        if epoch == self.epochs and self.average:
            network.load_state_dict(self.average)

    def state_dict(self) -> dict[str, Tensor]:
        return {"count": torch.tensor(self.count), **{f"average.{name}": v for name, v in self.average.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.count = int(state["count"])
        self.average = {name.removeprefix("average."): v for name, v in state.items() if name != "count"}


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """The average over the epochs of any host."""
    return AveragedOverEpochs(
        data.epochs, options["start"], options["decay"] if options["rule"] == "exponential" else None
    )
