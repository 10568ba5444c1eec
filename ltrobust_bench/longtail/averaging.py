"""Averages of a network's weights over its training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def average_into(average: Mapping[str, Tensor], now: Mapping[str, Tensor], decay: float) -> None:
    """a <- decay a + (1 - decay) w, in place, for every tensor of ``average``; whole numbers are cut toward zero.

    Args:
        average: tensors by name, without gradient.
        now: has the same names and shapes, and maybe more.
        decay: in [0, 1].
    """
    real = [name for name, value in average.items() if value.is_floating_point()]
    torch._foreach_mul_([average[name] for name in real], decay)
    torch._foreach_add_(
        [average[name] for name in real], [now[name].to(average[name]) for name in real], alpha=1 - decay
    )
    for name in average.keys() - set(real):
        average[name].copy_(decay * average[name].double() + (1 - decay) * now[name].double())
