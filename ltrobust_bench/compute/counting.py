"""Counting the computing that was really done, in images passed through the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook


@dataclass
class Counter:
    """Images passed forward and backward."""

    forwards: int = 0
    backwards: int = 0

    def follow(self, outputs: Sequence[Tensor]) -> None:
        """Count a backward of as many images as ``outputs`` hold, [B, ...] each, whenever a gradient reaches any."""
        reached = [output for output in outputs if output.requires_grad]

        def count(gradient: Tensor) -> None:
            self.backwards += len(gradient)

        if reached:
            register_multi_grad_hook(reached, count, mode="any")


class Meter:
    """Counts what passes through a module, and through copies of it, whoever calls it.

    So a network that is given into other hands counts what they do with it. What the owner does itself, and counts in a
    way of its own, it does in :meth:`apart`.

    Args:
        module: images to something [B, ...].
        counter: where it is counted.
    """

    def __init__(self, module: nn.Module, counter: Counter) -> None:
        self.counter, self.counts = counter, True

        # A function, unlike a method, is what it was in a deep copy of the module.
        def count(module: nn.Module, given: Any, output: Tensor) -> None:
            if self.counts:
                counter.forwards += len(output)
                counter.follow([output])

        self._hook = module.register_forward_hook(count)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Nothing is counted here."""
        before, self.counts = self.counts, False
        try:
            yield
        finally:
            self.counts = before

    def leave(self, copied: nn.Module) -> None:
        """Do not count what passes through a copy."""
        copied._forward_hooks.pop(self._hook.id, None)


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
