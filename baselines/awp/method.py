"""AWP (Wu et al., NeurIPS 2020): the outer loss is taken at weights perturbed in the direction that raises it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ltrobust_bench.api import Plugin, PluginStep, TrainInfo


class AdversarialWeights(Plugin):
    """Before the loss w <- w + gamma d, after the update w <- w - gamma d, for weights of more than one dimension.

    d = |w| v / (|v| + 1e-20), v being one step of a proxy that climbs the host's loss: plain SGD (``separate``), or the
    main optimiser with its momentum and decay on the network itself, whose running statistics then move too
    (``main_optimizer``; RobustLT's code); weights and optimiser state are put back.

    Args:
        gamma: size of the perturbation.
        proxy: which step gives the direction.
        warmup: share of the budget without perturbation.
    """

    proxy_lr = 0.01  # without momentum and decay it does not matter: d is normalised

    def __init__(self, gamma: float, proxy: str, warmup: float) -> None:
        self.gamma, self.proxy, self.warmup = gamma, proxy, warmup
        self.perturbation: dict[Tensor, Tensor] = {}

    def before_loss(self, step: PluginStep) -> None:
        if step.epoch <= self.warmup * step.epochs:
            return
        network = step.network
        weights = {n: p for n, p in network.named_parameters() if p.requires_grad}
        buffers = [b.clone() for b in network.buffers()]
        gradients = torch.autograd.grad(step.fresh_loss(), list(weights.values()), allow_unused=True)
        with torch.no_grad():
            if self.proxy == "separate":
                for buffer, before in zip(network.buffers(), buffers, strict=True):
                    buffer.copy_(before)  # what the proxy saw is discarded
            moves = self._moves(step, list(weights.values()), gradients)
            for (name, weight), move in zip(weights.items(), moves, strict=True):
                if weight.dim() > 1 and "weight" in name:
                    direction = weight.norm() / (move.norm() + 1e-20) * move
                    self.perturbation[weight] = self.gamma * direction
                    weight.add_(self.perturbation[weight])

    def _moves(self, step: PluginStep, weights: list[Tensor], gradients: tuple[Tensor | None, ...]) -> list[Tensor]:
        known = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradients, strict=True)]
        if self.proxy == "separate":
            return [(w + self.proxy_lr * g) - w for w, g in zip(weights, known, strict=True)]
        optimizer, before = step.optimizer, [w.clone() for w in weights]
        state = copy.deepcopy(optimizer.state_dict())
        optimizer.zero_grad(set_to_none=True)  # what else it moves, as a companion, stays where it is
        for weight, gradient in zip(weights, known, strict=True):
            weight.grad = -gradient
        optimizer.step()
        moves = [w - b for w, b in zip(weights, before, strict=True)]
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)
            weight.grad = None
        optimizer.load_state_dict(state)
        return moves

    def after_update(self, step: PluginStep) -> None:
        with torch.no_grad():
            for weight, perturbation in self.perturbation.items():
                weight.sub_(perturbation)
        self.perturbation.clear()


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """AWP around any host."""
    return AdversarialWeights(options["gamma"], options["proxy"], options["warmup"])
