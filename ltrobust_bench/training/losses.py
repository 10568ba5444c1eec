"""Losses that are no longer what they should be: not finite, or finite and far beyond what guessing costs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ltrobust_bench.training.step import Trainee

LOOK = 10
"""Steps between looks at the losses, each of which waits for the device."""
EXPLODED = 10
"""An epoch's mean loss has exploded above so many times ln C, what guessing among C classes costs."""
MOST_UNDONE = 0.1
"""Share of an epoch's steps that may be undone, at least one, before the training is given up."""


class LossWatch:
    """The losses of the latest steps, kept on the device.

    Args:
        step: finished steps of the epoch.
    """

    def __init__(self, step: int) -> None:
        self.step, self.recent = step, list[Tensor]()

    def add(self, loss: Tensor) -> bool:
        """One more step's loss, scalar; whether it is time to look."""
        self.recent.append(loss)
        return len(self.recent) >= LOOK

    def not_finite(self) -> tuple[int, float] | None:
        """The first step (from 0) since the last look whose loss is not finite, and that loss; None: there is none."""
        if not self.recent:
            return None
        losses = torch.stack(self.recent).tolist()
        found = next(((self.step + i, loss) for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        self.step, self.recent = self.step + len(losses), []
        return found


class Undo:
    """A training as it is before a step, to be put back if the step spoils it. Costs a copy of the weights and the
    optimiser's state."""

    def __init__(self, trainee: Trainee) -> None:
        self.trainee = trainee
        self.before = copy.deepcopy(self._state())

    def _state(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        trainee = self.trainee
        memories = {name: memory.state_dict() for name, memory in trainee.memories.items()}
        weights = {name: network.state_dict() for name, network in trainee.networks.items()}
        return weights, trainee.optimizer.state_dict(), memories

    def spoiled(self, loss: Tensor) -> bool:
        """Whether the step's loss, or a weight or statistic after it, is not finite."""
        weights = [v for network in self.trainee.networks.values() for v in network.state_dict().values()]
        values = [loss, *(v for v in weights if v.is_floating_point())]
        return not torch.stack([value.isfinite().all() for value in values]).all().item()

    def put_back(self) -> None:
        """Undo the step: network, optimiser and memories are what they were."""
        weights, optimizer, memories = self.before
        for name, network in self.trainee.networks.items():
            network.load_state_dict(weights[name])
        self.trainee.optimizer.load_state_dict(optimizer)
        for name, memory in self.trainee.memories.items():
            memory.load_state_dict(memories[name])


def exploded(losses: Sequence[float], classes: int) -> list[int]:
    """Epochs (from 1) whose mean loss is above ``EXPLODED`` times ln C.

    Args:
        losses: mean loss of each epoch.
        classes: C.

    Example:
        >>> exploded([2.3, 400.0, 2.3], classes=10)
        [2]
    """
    return [epoch for epoch, loss in enumerate(losses, 1) if loss > EXPLODED * math.log(classes)]
