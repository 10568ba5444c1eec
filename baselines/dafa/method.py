"""DAFA (ICLR 2024): classes that are easily taken for a stronger class get a larger loss weight and training radius,
from the class similarities at the end of a warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import AttackBudget, Method, Network, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import kl_divergence, natural_divergence


def class_weights(similarity: Tensor, strength: float) -> Tensor:
    """w_i = 1 + strength * sum_{j != i} (S_ij S_jj if S_ii < S_jj else -S_ji S_ii); [C].

    Args:
        similarity: S_ij, the mean adversarial softmax of images of class i on class j, shape [C, C].
        strength: lambda.
    """
    own = similarity.diagonal()
    weaker = own[:, None] < own[None, :]
    change = torch.where(weaker, similarity * own[None, :], -(similarity * own[None, :]).T)
    return 1 + strength * (change - torch.diag(change.diagonal())).sum(dim=1)


class Similarity:
    """Class weights: 1 during the warm-up, then fixed by the similarities seen in its last epoch.

    Args:
        classes: C.
        last: last epoch of the warm-up.
        strength: lambda.
        like: gives type and device.
        least: no weight is below it; None: whatever comes out.
    """

    def __init__(self, classes: int, last: int, strength: float, like: Tensor, least: float | None = None) -> None:
        self.last, self.strength, self.least, self.epoch = last, strength, least, 1
        self.total, self.seen = like.new_zeros(classes, classes), like.new_zeros(classes)
        self.weights = like.new_ones(classes)

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        if self.epoch == self.last:
            probabilities = F.softmax(outputs.adversarial.logits.detach(), dim=1).to(self.total.dtype)
            self.total.index_add_(0, y, probabilities)
            self.seen.scatter_add_(0, y, torch.ones_like(y, dtype=self.seen.dtype))

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        if epoch == self.last:
            weights = class_weights(self.total / self.seen.clamp_min(1)[:, None], self.strength)
            self.weights = weights if self.least is None else weights.clamp_min(self.least)
        self.epoch = epoch + 1

    def state_dict(self) -> dict[str, Tensor]:
        return {"total": self.total, "seen": self.seen, "weights": self.weights, "epoch": torch.tensor(self.epoch)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.total, self.seen, self.weights = (state[k].to(self.weights) for k in ("total", "seen", "weights"))
        self.epoch = int(state["epoch"])


def weighted_trades(weights: Tensor, beta: float, clean: Tensor, adversarial_logits: Tensor, y: Tensor) -> Tensor:
    """mean_i[w_y CE(f(x), y)] + beta * mean_i KL(f(x) || f(x_adv)).

    Args:
        weights: w, shape [C].
        clean, adversarial_logits: shape [B, C].
    """
    ce = F.cross_entropy(clean, y, reduction="none")
    return (weights.to(clean.dtype)[y] * ce).mean() + beta * kl_divergence(clean, adversarial_logits).mean()


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """DAFA on TRADES; with ``host=at`` the weights act on the adversarial cross-entropy."""
    last = max(1, round(options["warmup"] * data.epochs))
    similarity = Similarity(data.num_classes, last, options["strength"], data.counts, options["least"])

    def budget(given: AttackBudget, y: Tensor, ctx: StepContext) -> AttackBudget:
        factor = similarity.weights[y]
        return AttackBudget(given.epsilon * factor, given.step_size * factor, given.start * factor)

    def trades(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        adversarial_logits = outputs.adversarial.logits
        return weighted_trades(similarity.weights, options["beta"], outputs.clean.logits, adversarial_logits, y)

    def plain(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        logits = outputs.adversarial.logits
        ce = F.cross_entropy(logits, y, reduction="none")
        return (similarity.weights.to(logits.dtype)[y] * ce).mean()

    memory = {"similarity": similarity}
    if options["host"] == "at":
        return Method(attack_budget=budget, loss=plain, memory=memory)
    return Method(objective=natural_divergence, attack_budget=budget, loss=trades, memory=memory)
