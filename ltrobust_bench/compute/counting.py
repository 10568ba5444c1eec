"""Counting the computing that was really done, in images passed through the network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Counter:
    """Images passed forward and backward."""

    forwards: int = 0
    backwards: int = 0


class CountingModel(nn.Module):
    """A model that counts its forwards, and the backwards through it that really happen."""

    def __init__(self, model: nn.Module, counter: Counter) -> None:
        super().__init__()
        self.model, self.counter = model, counter

    def _count_backward(self, gradient: Tensor) -> None:
        self.counter.backwards += len(gradient)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ``x``."""
        self.counter.forwards += len(x)
        logits = self.model(x)
        if isinstance(logits, Tensor) and logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits
