"""Logit adjustment in the outer loss (Menon et al., ICLR 2021) under adversarial training: CE(z + tau ln pi, y)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ltrobust_bench.api import Method, TrainInfo, adversarial
from ltrobust_bench.longtail import balanced_softmax


def frozen_bias(features: int, classes: int) -> nn.Module:
    """A linear head whose bias stays at its random start (RoBal's released configuration)."""
    head = nn.Linear(features, classes)
    head.bias.requires_grad_(False)
    return head


def no_bias(features: int, classes: int) -> nn.Module:
    """A linear head without bias."""
    return nn.Linear(features, classes, bias=False)


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """The loss is balanced softmax's (ln pi and ln n differ by a constant); the head has no trainable bias."""
    head = frozen_bias if options["bias"] == "frozen" else no_bias
    return Method(loss=adversarial(balanced_softmax(data.counts, tau=options["tau"])), head=head)
