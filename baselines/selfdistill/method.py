"""Self-distillation, our reading of Cho, Lee, Kim (ICLR 2025): balanced softmax on adversarial examples, and the
predictions of a teacher that was trained adversarially on a balanced re-draw of the same data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ltrobust_bench.api import Method, OuterLoss, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import balanced_softmax, kl_divergence


def distillation_loss(counts: Tensor, weight: float) -> OuterLoss:
    """Balanced softmax of the adversarial logits + weight * mean KL(teacher(x_adv) || student(x_adv))."""
    criterion = balanced_softmax(counts)

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        logits = outputs.adversarial.logits
        return criterion(logits, y) + weight * kl_divergence(ctx.teacher_logits(), logits).mean()

    return loss


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """The student; its teacher is the run that the card's base names."""
    return Method(loss=distillation_loss(data.counts, options["weight"]))
