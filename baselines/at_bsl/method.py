"""AT-BSL (Yue et al., CVPR 2024): adversarial training with balanced softmax outside, plain CE inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltrobust_bench.api import Method, TrainInfo, adversarial
from ltrobust_bench.longtail import balanced_softmax


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Balanced softmax on the adversarial logits; raw logits in the attack and when deployed."""
    return Method(loss=adversarial(balanced_softmax(data.counts, tau=options["tau"])))
