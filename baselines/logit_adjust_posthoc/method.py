"""Post-hoc logit adjustment (Menon et al., ICLR 2021; RoBal's study) of a finished network: z - tau ln pi."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltrobust_bench.api import Method, TrainInfo
from ltrobust_bench.longtail import AffineLogits


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Nothing is trained; the finished network is deployed with shifted logits."""
    prior = data.counts / data.counts.sum()
    return Method(deploy=lambda network, info: AffineLogits(network, 1.0, -options["tau"] * prior.log()))
