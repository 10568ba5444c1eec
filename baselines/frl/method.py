"""FRL (Xu et al., ICML 2021): TRADES whose class weights and training radii are multipliers of fairness constraints,
raised for classes whose errors exceed the mean's by more than is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import AttackBudget, Method, Network, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import kl_divergence, natural_divergence

WRITTEN_FOR = 40  # epochs of the authors' schedule, in which the epochs that halve rate_1 count
HALVED_AT = (40, 80)
SMALLEST_RADIUS = 0.98


class Preset(NamedTuple):
    """The authors' values for one kind."""

    delta: float
    rate_2: float
    largest_radius: float


PRESETS = {"rw": Preset(0.1, 0.1, 2.5), "rwrm": Preset(0.07, 0.2, 3.0)}


class Errors(NamedTuple):
    """Errors of each class, [C], and what they are compared with: of clean images, and what the attack adds to it."""

    clean: Tensor
    boundary: Tensor
    mean_clean: Tensor
    mean_boundary: Tensor


def capped(multipliers: Tensor, limit: float) -> Tensor:
    """max(l, 0), scaled to sum ``limit`` where the sum is larger; [C]."""
    positive = multipliers.clamp_min(0)
    return positive * (limit / positive.sum().clamp_min(limit))


def class_weights(multipliers: Tensor) -> Tensor:
    """w_c = 1/C + l_c - mean l: they sum to 1; [C]."""
    return 1 / len(multipliers) + multipliers - multipliers.mean()


def radius_factors(multipliers: Tensor, largest: float) -> Tensor:
    """rho_c = exp(2 l_c), kept between 0.98 and ``largest``; [C]."""
    return (2 * multipliers).exp().clamp(SMALLEST_RADIUS, largest)


class Multipliers:
    """The multipliers of clean errors, boundary errors and radii. They start at 0 and move at the end of each epoch, by
    the errors of its training batches as they were trained on.

    Args:
        counts: training images per class, shape [C].
        epochs: length of the budget.
        remargin: whether radii move, too.
        preset, rate_1, limit: delta, the step sizes, and the largest sum of clean and of boundary multipliers.
        total: compare with the mean of ``class`` errors, or of all ``images`` (released).
    """

    def __init__(
        self, counts: Tensor, epochs: int, remargin: bool, preset: Preset, rate_1: float, limit: float, total: str
    ) -> None:
        self.epochs, self.remargin, self.preset, self.limit, self.total = epochs, remargin, preset, limit, total
        self.rate_1 = rate_1
        self.clean, self.boundary, self.radius = (torch.zeros_like(counts) for _ in range(3))
        self.seen, self.wrong_clean, self.wrong_robust = (torch.zeros_like(counts) for _ in range(3))

    def rate_in(self, epoch: int) -> float:
        """Step size of the clean multipliers for an epoch (from 1): halved on entering each of ``HALVED_AT``."""
        return self.rate_1 * 0.5 ** sum(epoch * WRITTEN_FOR >= m * self.epochs for m in HALVED_AT)

    def move(self, errors: Errors, rate_1: float) -> None:
        """One step of projected ascent on what the constraints are violated by."""
        delta, rate_2 = self.preset.delta, self.preset.rate_2
        excess = errors.boundary - errors.mean_boundary - delta
        self.clean = capped(self.clean + rate_1 * (errors.clean - errors.mean_clean - delta), self.limit)
        self.boundary = capped(self.boundary + 2 * rate_1 * excess, self.limit)
        if self.remargin:
            self.radius = self.radius + rate_2 * excess

    def errors(self) -> Errors:
        """Of the epoch so far."""
        seen = self.seen.clamp_min(1)
        clean = self.wrong_clean / seen
        boundary = self.wrong_robust / seen - clean
        share = seen / seen.sum() if self.total == "images" else torch.full_like(seen, 1 / len(seen))
        return Errors(clean, boundary, (share * clean).sum(), (share * boundary).sum())

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        self.seen.scatter_add_(0, y, torch.ones_like(y, dtype=self.seen.dtype))
        for wrong, output in ((self.wrong_clean, outputs.clean), (self.wrong_robust, outputs.adversarial)):
            wrong.scatter_add_(0, y, (output.logits.detach().argmax(dim=1) != y).to(wrong.dtype))

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        self.move(self.errors(), self.rate_in(epoch + 1))
        self.seen, self.wrong_clean, self.wrong_robust = (torch.zeros_like(self.seen) for _ in range(3))

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name in STATE:
            setattr(self, name, state[name].to(self.clean))


STATE = ("clean", "boundary", "radius", "seen", "wrong_clean", "wrong_robust")


def weighted_trades(clean: Tensor, adversarial: Tensor, y: Tensor, w: Tensor, v: Tensor, beta: float) -> Tensor:
    """sum_i w_i CE_i / sum_i w_i + beta * sum_i v_i KL_i / sum_i v_i, weights by label. Scalar.

    Args:
        clean, adversarial: logits, shape [B, C].
        w, v: class weights of the two terms, shape [C].
    """
    w, v = (weights.to(clean.dtype)[y] for weights in (w, v))
    ce = (w * F.cross_entropy(clean, y, reduction="none")).sum() / w.sum()
    return ce + beta * (v * kl_divergence(clean, adversarial)).sum() / v.sum()


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """FRL, reweighted (``rw``) or also with radii (``rwrm``); it starts from the run that the card's base names."""
    preset = PRESETS[options["kind"]]
    given = {name: options[name] for name in ("delta", "rate_2") if options[name] is not None}
    remargin = options["kind"] == "rwrm"
    multipliers = Multipliers(
        data.counts,
        data.epochs,
        remargin,
        preset._replace(**given),
        options["rate_1"],
        options["limit"],
        options["total"],
    )
    prior = 1 / data.counts if options["base_weights"] == "counts" else torch.ones_like(data.counts)

    def budget(given: AttackBudget, y: Tensor, ctx: StepContext) -> AttackBudget:
        if not remargin:
            return given
        radius = given.epsilon * radius_factors(multipliers.radius, preset.largest_radius)[y]
        return AttackBudget(radius, radius.max() / 4 if options["step"] == "largest" else given.step_size, given.start)

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        w, v = (prior * class_weights(term) for term in (multipliers.clean, multipliers.boundary))
        return weighted_trades(outputs.clean.logits, outputs.adversarial.logits, y, w, v, options["beta"])

    return Method(objective=natural_divergence, attack_budget=budget, loss=loss, memory={"multipliers": multipliers})
