"""Plain adversarial training on a balanced re-draw of the data: the same number of images of every class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ltrobust_bench.api import Method, TrainInfo
from ltrobust_bench.longtail import balanced_subset


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """An epoch goes through the balanced set in random order, as often as the budget's steps allow."""
    per_class = max(1, int(options["gamma"] * data.counts.min().item()))

    def sampler(labels: np.ndarray, draws: int, epoch: int, generator: np.random.Generator) -> np.ndarray:
        subset = balanced_subset(labels, per_class)
        rounds = -(-draws // len(subset))
        return np.concatenate([generator.permutation(subset) for _ in range(rounds)])

    return Method(sampler=sampler)
