"""Empirical risk minimisation: clean cross-entropy, no attack. The reference that every defense must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F

from ltrobust_bench.api import Method, TrainInfo, clean, never


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Plain training."""
    return Method(loss=clean(F.cross_entropy), crafts=never)
