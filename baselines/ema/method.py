"""SEAT (Wang & Wang, ICLR 2022): what is deployed is an average of the weights over the steps of any training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ltrobust_bench.api import Network, Outputs, Plugin, PluginStep, TrainInfo
from ltrobust_bench.longtail import average_into


def ramp(steps: int, largest: float, warmup: int = 1) -> float:
    """d_n = min(largest, (1 + n - u) / (10 + n - u)) after n steps, 0 before ``warmup`` u: 0.1, 0.18, 0.25, ..."""
    past = steps - warmup
    return 0.0 if past < 0 else min(largest, (1 + past) / (10 + past))


class AveragedOverSteps(Plugin):
    """a <- d_n a + (1 - d_n) w after step n; a begins as the network before the first update, and takes the network's
    place at the end of the budget.

    Args:
        epochs: length of the budget.
        decay, warmup: of :func:`ramp`.
        buffers: ``average`` running statistics, copy whole numbers; ``official`` average both; ``copy`` both.
    """

    def __init__(self, epochs: int, decay: float, warmup: int, buffers: str) -> None:
        self.epochs, self.decay, self.warmup, self.buffers = epochs, decay, warmup, buffers
        self.steps, self.average = 0, dict[str, Tensor]()

    def before_loss(self, step: PluginStep) -> None:
        if not self.average:
            self.average = {name: value.detach().clone() for name, value in step.network.state_dict().items()}

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        self.steps += 1
        now, copied = network.state_dict(), self._copied(network)
        mixed = {name: value for name, value in self.average.items() if name not in copied}
        average_into(mixed, now, ramp(self.steps, self.decay, self.warmup))
        for name in copied:
            self.average[name].copy_(now[name])

    def _copied(self, network: Network) -> set[str]:
        """Names of the buffers that are not averaged."""
        if self.buffers == "official":
            return set()
        exact = self.buffers == "average"
        return {name for name, value in network.named_buffers() if not (exact and value.is_floating_point())}

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        if epoch == self.epochs:
            network.load_state_dict(self.average)

    def state_dict(self) -> dict[str, Tensor]:
        return {"steps": torch.tensor(self.steps), **{f"average.{name}": v for name, v in self.average.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        self.average = {name.removeprefix("average."): v for name, v in state.items() if name != "steps"}


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """The average over the steps of any host."""
    return AveragedOverSteps(data.epochs, options["decay"], options["warmup"], options["buffers"])
