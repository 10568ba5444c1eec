"""The hooks around a step: partners beside the images, mixed labels, weights moved for the loss and moved back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltrobust_bench.api import Mixed, Network, Outputs, Plugin, PluginStep, StepContext, TrainInfo


class Restless(Plugin):
    """Half an image and half its partner, under weights that are shaken by ``size`` / (1 + steps so far)."""

    def __init__(self, size: float) -> None:
        self.size, self.steps = size, 0
        self.shaken: dict[Tensor, Tensor] = {}

    def order(self, order: np.ndarray, labels: np.ndarray, epoch: int, generator: np.random.Generator) -> np.ndarray:
        return np.stack([order, generator.permutation(order)])

    def batch(self, x: Tensor, y: Tensor, ctx: StepContext) -> tuple[Tensor, Mixed]:
        others, theirs = ctx.partners
        return (x + others) / 2, Mixed(y, theirs, 0.5)

    @torch.no_grad()
    def before_loss(self, step: PluginStep) -> None:
        for weight in step.network.parameters():
            noise = torch.randn(weight.shape).to(weight)
            self.shaken[weight] = noise * weight.norm() / noise.norm() * self.size / (1 + self.steps)
            weight.add_(self.shaken[weight])

    @torch.no_grad()
    def after_update(self, step: PluginStep) -> None:
        for weight, noise in self.shaken.items():
            weight.sub_(noise)
        self.shaken.clear()

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Tensor]:
        return {"steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.steps = int(state["steps"])


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """Around any method."""
    return Restless(options["size"])
