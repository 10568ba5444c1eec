"""What is deployed is the network as it was an epoch ago."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ltrobust_bench.api import Network, Plugin, TrainInfo


class Lagging(Plugin):
    """Keeps the weights of the epoch before; they take the network's place at the end of the budget, of ``epochs``."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.before = epochs, dict[str, Tensor]()

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        now = {name: value.detach().clone() for name, value in network.state_dict().items()}
        if epoch == self.epochs and self.before:
            network.load_state_dict(self.before)
        self.before = now

    def state_dict(self) -> dict[str, Tensor]:
        return self.before

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.before = dict(state)


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """Around any method."""
    return Lagging(data.epochs)
