"""Class-balanced focal loss under adversarial training (Cui et al., CVPR 2019; RoBal's study)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltrobust_bench.api import Method, TrainInfo, adversarial
from ltrobust_bench.longtail import effective_weights, sigmoid_focal


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Focal loss weighted by the inverse effective number of the label's class."""
    weights = effective_weights(data.counts, options["beta"])
    return Method(loss=adversarial(lambda z, y: sigmoid_focal(z, y, options["gamma"], weights)))
