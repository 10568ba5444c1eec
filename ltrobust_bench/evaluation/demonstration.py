"""Models that are built to fool an evaluation, each around an honest one: they raise the flags of ``reliability.py``.

For tests, and for ``docs/evaluation.md``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Around(nn.Module):
    """An honest model with something done to its input and to its output."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.model(self.before(x)))


def quantised(model: nn.Module, levels: int = 8) -> nn.Module:
    """Pixels rounded to a few levels: the gradient is 0 everywhere."""
    return Around(model, before=lambda x: torch.round(x * levels) / levels)


def thermometer(model: nn.Module, levels: int = 8, steepness: float = 2000.0) -> nn.Module:
    """Pixels as the sum of steep steps (after thermometer encoding): the gradient vanishes between the steps."""

    def encode(x: Tensor) -> Tensor:
        steps = (torch.arange(levels, device=x.device) + 0.5) / levels
        return torch.sigmoid(steepness * (x.unsqueeze(-1) - steps)).mean(dim=-1)

    return Around(model, before=encode)


def scaled(model: nn.Module, factor: float) -> nn.Module:
    """Logits times a factor: cross-entropy saturates, or cannot tell the other classes apart."""
    return Around(model, after=lambda z: factor * z)


def softmaxed(model: nn.Module) -> nn.Module:
    """Probabilities in place of logits."""
    return Around(model, after=lambda z: z.softmax(dim=1))


def dropping(model: nn.Module, p: float = 0.2) -> nn.Module:
    """Dropout of pixels, active at test time."""
    return Around(model, before=lambda x: F.dropout(x, p, training=True) * (1 - p))


def noisy(model: nn.Module, spread: float = 3.0) -> nn.Module:
    """The logits as they are, their gradient times random numbers: attacks climb, but slowly."""
    return Around(model, before=lambda x: x + (x - x.detach()) * spread * torch.randn_like(x))


def purifying(model: nn.Module, share: float = 0.2) -> nn.Module:
    """Images with many half-dark pixels, as large perturbations make them, are turned to black and white first, which
    has no gradient: a detector that makes a larger radius look harmless."""

    def clean(x: Tensor) -> Tensor:
        suspicious = ((x > 0.2) & (x < 0.5)).flatten(1).float().mean(dim=1) > share
        return torch.where(suspicious.view(-1, 1, 1, 1), (x > 0.55).to(x.dtype), x)

    return Around(model, before=clean)


class BatchStatistics(nn.Module):
    """Normalises the logits with the statistics of the batch, and keeps running ones that it updates at test time."""

    running: Tensor

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("running", torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        z = self.model(x)
        with torch.no_grad():
            self.running.mul_(0.9).add_(0.1 * z.mean(dim=0))
        return z - z.mean(dim=0, keepdim=True)


DEMONSTRATIONS: dict[str, tuple[Callable[[nn.Module], nn.Module], tuple[str, ...]]] = {
    "quantised pixels": (quantised, ("zero gradients", "square", "robust to anything")),
    "thermometer encoding": (thermometer, ("square", "robust to anything")),
    "logits x 1000": (lambda m: scaled(m, 1000.0), ("zero gradients", "robust to anything")),
    "logits x 30": (lambda m: scaled(m, 30.0), ("scaled logits",)),
    "noisy gradients": (noisy, ("square", "PGD not converged")),
    "logits x 0.001": (lambda m: scaled(m, 0.001), ("flat logits",)),
    "probabilities": (softmaxed, ("probabilities",)),
    "purifier": (purifying, ("not monotone", "robust to anything")),
    "dropout at test": (dropping, ("random",)),
    "batch statistics": (lambda m: BatchStatistics(m, 10), ("batch", "state")),
}
"""Name, how it is made of an honest model, and flags that it raises at least."""
