"""RW-fine (RoBal's study): a finished network is trained on with the class-balanced focal loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltrobust_bench.api import Method, TrainInfo, adversarial, everything, head_only
from ltrobust_bench.longtail import effective_weights, sigmoid_focal


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Ordinary shuffling; ``scope`` says what is trained."""
    weights = effective_weights(data.counts, options["beta"])
    return Method(
        loss=adversarial(lambda z, y: sigmoid_focal(z, y, options["gamma"], weights)),
        trains=head_only if options["scope"] == "head" else everything,
    )
