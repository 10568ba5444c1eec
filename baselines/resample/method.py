"""Re-sampling under adversarial training: class-aware cycles, square-root or progressively balanced draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ltrobust_bench.api import Method, TrainInfo
from ltrobust_bench.longtail import ClassAware, class_frequencies, weighted_draws


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """The loss is plain adversarial training's; only the images of an epoch are others."""
    kind = options["kind"]
    if kind == "class-aware":
        cycles = ClassAware()
        return Method(sampler=cycles, memory={"sampler": cycles})
    counts = data.counts.cpu().numpy()

    def sampler(labels: np.ndarray, draws: int, epoch: int, generator: np.random.Generator) -> np.ndarray:
        if kind == "square-root":
            frequencies = class_frequencies(counts, 0.5)
        else:
            share = epoch / data.epochs
            frequencies = (1 - share) * class_frequencies(counts, 1.0) + share * class_frequencies(counts, 0.0)
        return weighted_draws(labels, draws, frequencies, generator)

    return Method(sampler=sampler)
