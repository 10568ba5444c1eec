"""Tailguard (ours): adversarial training on the images as they are first, and on balanced draws at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, Outputs, StepContext, TrainInfo, shuffle
from ltrobust_bench.longtail import ClassAware, balanced_softmax


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Natural draws up to the share ``begin`` of the budget, with balanced softmax if ``tau`` is above 0; class-aware
    draws and plain cross-entropy after it."""
    last = options["begin"] * data.epochs
    cycles, before = ClassAware(), balanced_softmax(data.counts, tau=options["tau"])

    def sampler(labels: np.ndarray, draws: int, epoch: int, generator: np.random.Generator) -> np.ndarray:
        draw = shuffle if epoch <= last else cycles
        return draw(labels, draws, epoch, generator)

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        criterion = before if ctx.epoch <= last else F.cross_entropy
        return criterion(outputs.adversarial.logits, y)

    return Method(sampler=sampler, loss=loss, memory={"sampler": cycles})
