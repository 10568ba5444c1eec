"""Every part of the contract that stands around objective and loss: none of it is ours to keep, all of it is short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Group, Method, Network, Outputs, StepContext, TrainInfo, linear
from ltrobust_bench.longtail import class_frequencies, kl_divergence, weighted_draws


def pairs(labels: np.ndarray, draws: int, epoch: int, generator: np.random.Generator) -> np.ndarray:
    """Every image once, and beside each one of a class drawn evenly, [2, draws]."""
    own = generator.permutation(len(labels))
    even = class_frequencies(np.bincount(labels), 0.0)
    return np.stack([own, weighted_draws(labels, len(own), even, generator)])


class Drift:
    """How far the head has moved from where it began, as a mean over the steps."""

    def __init__(self) -> None:
        self.first: Tensor | None = None
        self.mean, self.steps = torch.zeros(()), 0

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        weight = next(network.head.parameters()).detach()
        self.first = weight.clone() if self.first is None else self.first
        self.mean = self.mean.to(weight) + ((weight - self.first).norm() - self.mean.to(weight)) / (self.steps + 1)
        self.steps += 1

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        """It goes on."""

    def state_dict(self) -> dict[str, Tensor]:
        kept = {"mean": self.mean, "steps": torch.tensor(self.steps)}
        return kept if self.first is None else {**kept, "first": self.first}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.first, self.mean, self.steps = state.get("first"), state["mean"], int(state["steps"])


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Soft labels [B, C] in attack and loss, a view in eval mode, and the companion's logits of the blended batch."""
    share, classes, drift = options["own"], data.num_classes, Drift()

    def batch(x: Tensor, y: Tensor, ctx: StepContext) -> tuple[Tensor, Tensor]:
        others, theirs = ctx.partners
        own, other = (F.one_hot(labels, classes).to(x.dtype) for labels in (y, theirs))
        return share * x + (1 - share) * others, share * own + (1 - share) * other

    def loss(outputs: Outputs, targets: Tensor, ctx: StepContext) -> Tensor:
        guide = outputs.companion(outputs.x).logits
        steady = outputs.of(0.5 * (outputs.x + outputs.x_adv), "eval").logits
        logits = outputs.adversarial.logits
        losses = F.cross_entropy(logits, targets) + F.cross_entropy(guide, targets) + F.cross_entropy(steady, targets)
        return losses + kl_divergence(guide.detach(), logits).mean() / (1 + drift.mean)

    def trains(network: Network) -> list[Any]:
        return [*network.backbone.parameters(), Group(list(network.head.parameters()), lr=0.1, weight_decay=0.0)]

    return Method(sampler=pairs, batch=batch, loss=loss, trains=trains, companion=linear, memory={"drift": drift})
