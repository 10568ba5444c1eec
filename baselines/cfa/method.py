"""CFA (Wei et al., CVPR 2023): training radius and TRADES weight of each class follow its robust accuracy in the last
epoch, and the weights are averaged over the epochs in which the worst class is not too weak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import AttackBudget, Method, Network, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import kl_divergence, natural_divergence


class RobustAccuracy:
    """Robust accuracy of each class in the last finished epoch, on the training batches as they were trained on.

    Args:
        counts: training images per class n, shape [C].
        form: ``class`` correct_c / n_c; ``official`` C correct_c / N, which is the same on balanced data only.
    """

    def __init__(self, counts: Tensor, form: str) -> None:
        self.counts, self.form = counts, form
        self.correct, self.seen = torch.zeros_like(counts), torch.zeros_like(counts)
        self.last = torch.zeros_like(counts)

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        right = outputs.adversarial.logits.detach().argmax(dim=1) == y
        self.correct.scatter_add_(0, y, right.to(self.correct.dtype))
        self.seen.scatter_add_(0, y, torch.ones_like(y, dtype=self.seen.dtype))

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        seen = self.seen.clamp_min(1) if self.form == "class" else self.seen.mean().expand_as(self.seen)
        self.last = self.correct / seen
        self.correct, self.seen = torch.zeros_like(self.counts), torch.zeros_like(self.counts)

    def state_dict(self) -> dict[str, Tensor]:
        return {"last": self.last, "correct": self.correct, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.last, self.correct, self.seen = (state[k].to(self.counts) for k in ("last", "correct", "seen"))


class FairAverage:
    """Average of the weights over epochs, w <- decay w + (1 - decay) w_epoch, over those in which the worst class's
    robust accuracy reaches a threshold; it takes the network's place at the end of the budget, if there was any.

    Args:
        accuracy: whose last epoch it looks at; it must be told of the epoch's end first.
        epochs: length of the budget.
        decay: 0 keeps the network as it is.
        threshold: of the worst class, a fraction.
    """

    def __init__(self, accuracy: RobustAccuracy, epochs: int, decay: float, threshold: float) -> None:
        self.accuracy, self.epochs, self.decay, self.threshold = accuracy, epochs, decay, threshold
        self.average: dict[str, Tensor] = {}

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        """Weights are averaged once an epoch."""

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        if self.decay == 0:
            return
        now = {name: value.detach().clone() for name, value in network.state_dict().items()}
        if self.accuracy.last.min() >= self.threshold:
            self.average = {
                name: self.decay * self.average.get(name, value) + (1 - self.decay) * value
                if value.is_floating_point()
                else value
                for name, value in now.items()
            }
        if epoch == self.epochs and self.average:
            network.load_state_dict(self.average)

    def state_dict(self) -> dict[str, Tensor]:
        return self.average

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.average = dict(state)


def class_radius(epsilon: float | Tensor, accuracy: Tensor, lambda_1: float) -> Tensor:
    """eps_c = (lambda_1 + a_c) eps: weak classes get smaller budgets; [C]."""
    return (lambda_1 + accuracy) * epsilon


def class_weight(beta: float, accuracy: Tensor, lambda_2: float) -> Tensor:
    """beta'_c = (lambda_2 + a_c) beta / (1 + (lambda_2 + a_c) beta), the share of the KL term; [C]."""
    scaled = (lambda_2 + accuracy) * beta
    return scaled / (1 + scaled)


def calibrated_trades(share: Tensor, clean: Tensor, adversarial_logits: Tensor, y: Tensor) -> Tensor:
    """mean_i[(1 - beta'_y) CE(f(x), y) + beta'_y KL(f(x) || f(x_adv))].

    Args:
        share: beta'_c, shape [C].
        clean, adversarial_logits: shape [B, C].
    """
    own = share.to(clean.dtype)[y]
    ce = F.cross_entropy(clean, y, reduction="none")
    return ((1 - own) * ce + own * kl_divergence(clean, adversarial_logits)).mean()


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """CFA on TRADES or on plain adversarial training. Before its start every class counts as (1 - lambda) accurate,
    which gives the host's own radius and weight."""
    accuracy = RobustAccuracy(data.counts, options["accuracy"])
    average = FairAverage(accuracy, data.epochs, options["average_decay"], options["threshold"])
    lambda_1, lambda_2 = options["lambda_1"], options["lambda_2"]

    def begun(ctx: StepContext) -> bool:
        return ctx.epoch > max(1, options["begin"] * ctx.epochs)

    def budget(given: AttackBudget, y: Tensor, ctx: StepContext) -> AttackBudget:
        if not begun(ctx):
            return given
        radius = class_radius(given.epsilon, accuracy.last, lambda_1)[y]
        return AttackBudget(radius, given.step_size, radius)

    def trades(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        known = accuracy.last if begun(ctx) else torch.full_like(accuracy.last, 1 - lambda_2)
        share = class_weight(options["beta"], known, lambda_2)
        return calibrated_trades(share, outputs.clean.logits, outputs.adversarial.logits, y)

    memory = {"accuracy": accuracy, "average": average}
    if options["host"] == "at":
        return Method(attack_budget=budget, memory=memory)
    return Method(objective=natural_divergence, attack_budget=budget, loss=trades, memory=memory)
