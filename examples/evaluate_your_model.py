"""Attack a model of your own with a protocol's suite, and read head, medium and tail.

    python examples/evaluate_your_model.py

The model maps images in [0, 1], float32 [B, channels, height, width], to logits [B, C]; normalisation belongs
inside it.
"""

from __future__ import annotations

import torch
from torch import nn

import ltrobust_bench as lt


class Normalised(nn.Module):
    """Your network, with its normalisation inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))  # put yours here

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x - 0.3) / 0.4)


result = lt.evaluate(Normalised(), "digits-lt", protocol="smoke")
for attack in ("clean", *result.attacks, "union"):
    m = result.metrics(attack)
    print(f"{attack:8} balanced {m.balanced:.1%}  head {m.head:.1%}  medium {m.medium:.1%}  tail {m.tail:.1%}")
print("per class, worst case of all attacks:", result.metrics().per_class.round(2))
