"""What speed is measured against: adversarial training as the authors' repositories write it, in our own words.

Plain float32 torch with nothing that makes it slower than they are: gradients of the images only, no logging, one
synchronisation per step (the loss that they print). The forward that REAT's repository spends on a log line is left
out, since this package does not compute it either.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Network
from ltrobust_bench.longtail import effective_number, normalised_inverse


def craft(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    noise: Tensor,
    class_weight: Tensor | None = None,
) -> Tensor:
    """PGD from a uniform start on (weighted) cross-entropy, batch norm in eval mode.

    Args:
        noise: the start, uniform in [0, 1), shape of ``x``.
    """
    network.eval()
    x_adv = x + epsilon * (2 * noise - 1)
    for _ in range(steps):
        x_adv.requires_grad_(True)
        loss = F.cross_entropy(network(x_adv), y, weight=class_weight)
        gradient = torch.autograd.grad(loss, [x_adv])[0]
        x_adv = x_adv.detach() + step_size * gradient.sign()
        x_adv = torch.min(torch.max(x_adv, x - epsilon), x + epsilon)
        x_adv = torch.clamp(x_adv, 0.0, 1.0)
    return x_adv


@dataclass
class AdversarialTraining:
    """PGD-AT: cross-entropy on adversarial images."""

    network: Network
    optimizer: torch.optim.Optimizer
    counts: Tensor
    epsilon: float
    step_size: float
    steps: int

    def attack_weight(self) -> Tensor | None:
        """Class weights of the attack's loss."""
        return None

    def loss(self, x_adv: Tensor, y: Tensor) -> Tensor:
        """The outer loss, scalar."""
        return F.cross_entropy(self.network(x_adv), y)

    def step(self, x: Tensor, y: Tensor, noise: Tensor) -> float:
        """One optimiser step; returns the loss."""
        x_adv = craft(
            self.network,
            x,
            y,
            epsilon=self.epsilon,
            step_size=self.step_size,
            steps=self.steps,
            noise=noise,
            class_weight=self.attack_weight(),
        )
        self.network.train()
        self.optimizer.zero_grad()
        loss = self.loss(x_adv, y)
        loss.backward()
        self.optimizer.step()
        return loss.item()


@dataclass
class Reat(AdversarialTraining):
    """REAT: weighted attack loss, balanced softmax, the tail term by its double loop over anchors and batch."""

    predicted: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.predicted = [0] * len(self.counts)
        beta = (self.counts - 1) / self.counts
        self.weight = normalised_inverse(effective_number(self.counts, beta), epsilon=1e-5).float()

    def attack_weight(self) -> Tensor | None:
        """The inverse effective number of last epoch's predictions."""
        return self.weight

    def loss(self, x_adv: Tensor, y: Tensor) -> Tensor:
        """Balanced softmax and the tail term."""
        logits, features = self.network.outputs(x_adv)
        for label in logits.argmax(dim=1).tolist():
            self.predicted[label] += 1
        return F.cross_entropy(logits + self.counts.float().log(), y) + self.tail(features, y)

    def tail(self, features: Tensor, y: Tensor) -> Tensor:
        """The mean over the batch's tail images of one divergence times the mean of signs and weights."""
        classes, labels = len(self.counts), y.tolist()
        omega = (self.counts.sum() / self.counts).sqrt().tolist()
        log_p = F.log_softmax(features, dim=1)
        terms = []
        for label, anchor in zip(labels, log_p.detach(), strict=True):
            if label < 2 * (classes // 3) + 1:
                continue
            factors = []
            for other in labels:
                sign = -1.0 if other == label else 1.0
                factors.append(sign * (omega[label] + omega[other]))
            divergence = (anchor.exp() * (anchor - log_p)).mean()
            terms.append((divergence * torch.tensor(factors, device=features.device)).mean())
        return torch.stack(terms).mean() if terms else features.new_zeros(())


LOOPS = {"at": AdversarialTraining, "reat": Reat}
