"""Class-dependent temperatures (Ye et al. 2020) under adversarial training: CE(z / a, y), a_c = (n_max / n_c)**tau."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Criterion, Method, TrainInfo, adversarial
from ltrobust_bench.longtail import class_temperatures


def temperature_cross_entropy(temperatures: Tensor) -> Criterion:
    """Cross-entropy of logits divided by each class's temperature."""
    return lambda logits, y: F.cross_entropy(logits / temperatures.to(logits.dtype), y)


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Temperatures in the outer loss only: attack and deployed model see the logits as they are."""
    return Method(loss=adversarial(temperature_cross_entropy(class_temperatures(data.counts, options["tau"]))))
