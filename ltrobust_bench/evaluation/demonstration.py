"""Models that are built to fool an evaluation, each around an honest one: they raise the flags of ``reliability.py``.

For tests, and for ``docs/evaluation.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Preprocessing(nn.Module):
    """A function from images to images as a module, so that it can be declared."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Around(nn.Module):
    """An honest model with something done to its input, which it declares, and to its output."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.model, self.preprocessing, self.after = model, Preprocessing(before), after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.model(self.preprocessing(x)))


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


class Stopping(torch.autograd.Function):
    """The images as they are; backward, nothing passes to those that are no multiples of 1/16, as digits are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        on_grid = ((16 * x - torch.round(16 * x)).abs() < 0.2).flatten(1).all(dim=1)
        ctx.save_for_backward(on_grid)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (on_grid,) = ctx.saved_tensors
        return gradients[0] * on_grid.view(-1, 1, 1, 1)


def stopping(model: nn.Module) -> nn.Module:
    """Gradients of clean images only, by an autograd function: what was attacked once has none."""
    return Around(model, before=Stopping.apply)


class Gated(nn.Module):
    """Logits behind a detector of rough images: what it suspects gets logits in coarse steps, whose gradient is 0.

    Args:
        model: pixels to logits.
        roughness: mean change between neighbouring pixels from which on an image is suspicious.
    """

    def __init__(self, model: nn.Module, roughness: float = 0.27) -> None:
        super().__init__()
        self.model, self.roughness = model, roughness

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.model(x)
        rough = (x.diff(dim=2).abs().mean(dim=(1, 2, 3)) + x.diff(dim=3).abs().mean(dim=(1, 2, 3))) / 2
        return torch.where((rough > self.roughness)[:, None], torch.round(8 * z) / 8, z)


class Purifying(nn.Module):
    """Each image is drowned in noise and cleaned again, a few times, and the mean of what the model says is returned;
    noise and cleaning have no gradient."""

    def __init__(self, model: nn.Module, draws: int = 4, noise: float = 0.05, levels: int = 8) -> None:
        super().__init__()
        self.model, self.draws, self.noise, self.levels = model, draws, noise, levels
        self.preprocessing = Preprocessing(self.purified)

    def purified(self, x: Tensor) -> Tensor:
        """Noise, and back to a few levels."""
        return torch.round((x + self.noise * torch.randn_like(x)) * self.levels) / self.levels

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.model(self.preprocessing(x)) for _ in range(self.draws)]).mean(dim=0)


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
    "gradient stopping": (stopping, ("zero gradients",)),
    "gated logits": (Gated, ("square",)),
    "random purifier": (Purifying, ("random",)),
    "dropout at test": (dropping, ("random",)),
    "batch statistics": (lambda m: BatchStatistics(m, 10), ("batch", "state")),
}
"""Name, how it is made of an honest model, and flags that it raises at least."""
