"""IKL-AT and GKL-AT (Cui et al., NeurIPS 2024 and arXiv 2503.08038): the KL divergence taken apart into a soft
cross-entropy and squared differences of logits, the latter weighted by what each class is taken for on average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import AttackBudget, Method, Network, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import balanced_softmax


class ClassPredictions:
    """M, the mean prediction on each class's clean images in the last finished epoch, a row per class; 1/C at first.

    A class of which an epoch has no image keeps its row.

    Args:
        classes: C.
        temperature: T, by which logits are divided here.
        mixing: share of the epoch's means in M; the rest is the M before.
        like: gives type and device.
    """

    def __init__(self, classes: int, temperature: float, mixing: float, like: Tensor) -> None:
        self.temperature, self.mixing = temperature, mixing
        self.matrix = like.new_full((classes, classes), 1 / classes)
        self.total = torch.zeros_like(self.matrix)

    def weights(self, y: Tensor, like: Tensor) -> Tensor:
        """The row of each image's label, [B, C]; type and device of ``like``."""
        return self.matrix.to(like)[y]

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        predictions = F.softmax(outputs.clean.logits.detach() / self.temperature, dim=1)
        self.total.index_add_(0, y, predictions.to(self.total.dtype))

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        size = self.total.sum(dim=1, keepdim=True)
        latest = torch.where(size > 0, self.total / size, self.matrix)
        self.matrix = self.mixing * latest + (1 - self.mixing) * self.matrix
        self.total = torch.zeros_like(self.matrix)

    def state_dict(self) -> dict[str, Tensor]:
        return {"matrix": self.matrix, "total": self.total}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.matrix, self.total = (state[k].to(self.matrix) for k in ("matrix", "total"))


def soft_cross_entropy(clean: Tensor, adversarial: Tensor) -> Tensor:
    """-sum_c softmax(z)_c ln softmax(z')_c, without gradient through softmax(z); [B]."""
    return -(F.softmax(clean.detach(), dim=1) * F.log_softmax(adversarial, dim=1)).sum(dim=1)


def squared_differences(clean: Tensor, adversarial: Tensor, weights: Tensor) -> Tensor:
    """Q_i = 1/4 sum_jk w_ij w_ik ((z_ij - z_ik) - (z'_ij - z'_ik))**2, in O(C); gradient flows through z and z'; [B].

    It is half of s_i sum_c w_ic (d_ic - mean)**2 with d = z - z', s_i = sum_c w_ic and the mean weighted by w.
    """
    difference, size = clean - adversarial, weights.sum(dim=1, keepdim=True)
    mean = (weights * difference).sum(dim=1, keepdim=True) / size
    return 0.5 * size.squeeze(1) * (weights * (difference - mean) ** 2).sum(dim=1)


def decoupled_divergence(clean: Tensor, adversarial: Tensor, weights: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha * mean_i SCE_i + beta * sum_i Q_i / sum_i s_i**2 (GKL; IKL where the weights of an image sum to 1). Scalar.

    Args:
        clean, adversarial: logits z and z', shape [B, C].
        weights: w, shape [B, C].
    """
    squares = squared_differences(clean, adversarial, weights).sum() / (weights.sum(dim=1) ** 2).sum()
    return alpha * soft_cross_entropy(clean, adversarial).mean() + beta * squares


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """IKL-AT, GKL-AT with ``gamma`` below 1; its attack, its loss and its memory share the class predictions."""
    memory = ClassPredictions(data.num_classes, options["temperature"], options["mixing"], data.counts)
    criterion = balanced_softmax(data.counts) if options["outer"] == "bsl" else F.cross_entropy
    small = data.num_classes <= 10
    joint = options["attack"] == "joint" or (options["attack"] == "official" and not small)

    def objective(logits: Tensor, y: Tensor, ctx: StepContext) -> Tensor:
        clean = ctx.natural_logits()
        value = soft_cross_entropy(clean, logits)
        return value + squared_differences(clean, logits, memory.weights(y, logits)) if joint else value

    def budget(given: AttackBudget, y: Tensor, ctx: StepContext) -> AttackBudget:
        share = ctx.epoch / ctx.epochs if options["radius_ramp"] else 1.0
        return AttackBudget(*(share * value for value in given))

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        clean, adversarial = outputs.clean.logits, outputs.adversarial.logits
        weights = memory.weights(y, clean) ** options["gamma"]
        divergence = decoupled_divergence(clean, adversarial, weights, options["alpha"], options["beta"])
        return criterion(clean, y) + divergence

    return Method(objective=objective, attack_budget=budget, loss=loss, memory={"predictions": memory})
