"""Plain adversarial training (Madry et al., ICLR 2018): cross-entropy inside and outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltrobust_bench.api import Method, TrainInfo


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Every part is the default."""
    return Method()
