"""REAT (Li et al., 2023): a re-balanced attack loss (RBL), balanced softmax, and a tail feature term (TAIL).

RBL weighs the attack's cross-entropy by the effective number of adversarial examples that the last epoch's network
*predicted* as each class. With batch norm in eval mode, as released, a positive factor per image cannot change
the sign of its gradient: RBL is then inert. ``attack.bn_mode=batch`` makes it effective.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, Network, Objective, OuterLoss, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import balanced_softmax, effective_number, normalised_inverse


def rbl_weights(counts: Tensor, predicted: Tensor) -> Tensor:
    """Attack class weights: the inverse effective number with beta_c = (n_c - 1) / n_c, mean 1; [C].

    Args:
        counts: training images per class n, shape [C].
        predicted: adversarial examples predicted as each class in the last epoch, shape [C].
    """
    return normalised_inverse(effective_number(predicted, (counts - 1) / counts), epsilon=1e-5)


class PredictedCounts:
    """How many adversarial examples were predicted as each class in the last finished epoch; n in the first.

    Args:
        counts: training images per class, shape [C].
        when: count the predictions before (REAT's code) or after (RobustLT's) the optimiser step.
    """

    def __init__(self, counts: Tensor, when: Literal["before", "after"] = "before") -> None:
        self.counts, self.when = counts, when
        self.last, self.current = counts.clone(), torch.zeros_like(counts)
        self.weights = rbl_weights(counts, self.last)

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        logits = outputs.adversarial.logits if self.when == "before" else outputs.after_update().logits
        predicted = logits.detach().argmax(dim=1)
        self.current.scatter_add_(0, predicted, torch.ones_like(predicted, dtype=self.current.dtype))

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        self.load_state_dict({"last": self.current, "current": torch.zeros_like(self.current)})

    def state_dict(self) -> dict[str, Tensor]:
        return {"last": self.last, "current": self.current}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.last, self.current = state["last"].to(self.counts), state["current"].to(self.counts)
        self.weights = rbl_weights(self.counts, self.last)


def rebalanced_cross_entropy(memory: PredictedCounts) -> Objective:
    """The attack loss: cross-entropy weighted by the true label's weight, over the sum of the weights; [B]."""

    def objective(logits: Tensor, y: Tensor, ctx: StepContext) -> Tensor:
        weight = memory.weights.to(logits.dtype)[y]
        return weight / weight.sum() * F.cross_entropy(logits, y, reduction="none")

    return objective


def pair_signs_sum(y: Tensor, omega: Tensor) -> Tensor:
    """c_i = mean_j sigma_ij (omega_{y_i} + omega_{y_j}), sigma = -1 within a class and +1 across, in O(B); [B]."""
    own = omega[y]
    same_class = torch.zeros_like(omega).scatter_add_(0, y, torch.ones_like(own))[y]
    return own + own.mean() - 4 * same_class * own / len(y)


def tail_term(features: Tensor, y: Tensor, omega: Tensor, is_tail: Tensor, form: str = "official") -> Tensor:
    """TAIL: mean over the batch's tail images of k_i c_i; 0 without any. Scalar.

    ``official`` (the released code): k_i is the mean over batch *and* features of P_i (ln P_i - ln P_j), one number
    per anchor, here in closed form O(B D). ``pairwise``: the mean over j of sigma_ij W_ij KL(P_i || P_j), as the
    idea reads. P = softmax(features), detached where it is the anchor.

    Args:
        features: shape [B, D].
        y: labels, shape [B].
        omega: sqrt(N / n_c), shape [C].
        is_tail: bool, shape [C].
    """
    log_p = F.log_softmax(features, dim=1)
    anchor = log_p.detach()
    entropy = (anchor.exp() * anchor).sum(dim=1)
    if form == "official":
        cross = anchor.exp() @ log_p.mean(dim=0)
        per_anchor = (entropy - cross) / features.shape[1] * pair_signs_sum(y, omega)
    else:
        sign = torch.where(y[:, None] == y[None, :], -1.0, 1.0).to(features.dtype)
        weight = omega[y][:, None] + omega[y][None, :]
        divergence = entropy[:, None] - anchor.exp() @ log_p.T
        per_anchor = (sign * weight * divergence).mean(dim=1)
    chosen = is_tail[y].to(features.dtype)
    return (chosen * per_anchor).sum() / chosen.sum().clamp_min(1)


def reat_loss(data: TrainInfo, tail: str, tail_start: str) -> OuterLoss:
    """Balanced softmax + TAIL on the train-mode forward of the adversarial batch."""
    outer = balanced_softmax(data.counts)
    classes = data.num_classes
    first = 2 * (classes // 3) + 1 if tail_start == "official" else classes - classes // 3
    is_tail = data.ranks >= first
    omega = (data.counts.sum() / data.counts).sqrt()

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        logits, features = outputs.adversarial
        value = outer(logits, y)
        if tail == "off":
            return value
        return value + tail_term(features, y, omega.to(features.dtype), is_tail, tail)

    return loss


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """REAT; its attack and its memory share the predicted counts."""
    memory = PredictedCounts(data.counts, options["count_at"])
    return Method(
        objective=rebalanced_cross_entropy(memory),
        loss=reat_loss(data, options["tail"], options["tail_start"]),
        memory={"predicted": memory},
    )
