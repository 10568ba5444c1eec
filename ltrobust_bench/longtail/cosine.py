"""Cosine heads and the affine form in which they are deployed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CosineHead(nn.Module):
    """z_c = scale * <h / |h|, W_c / (|W_c| + gamma)>, no bias; W ~ U(+-1/sqrt(D)).

    RoBal (CVPR 2021) uses scale 1 in training and gamma 1/32 or 1/16; gamma = 0 is the plain cosine head.

    Args:
        features: D.
        classes: C.
        scale: factor on the cosines.
        gamma: added to the norm of each class vector.
    """

    def __init__(self, features: int, classes: int, scale: float = 1.0, gamma: float = 0.0) -> None:
        super().__init__()
        self.scale, self.gamma = scale, gamma
        bound = 1 / math.sqrt(features)
        self.weight = nn.Parameter(torch.empty(classes, features).uniform_(-bound, bound))

    def forward(self, h: Tensor) -> Tensor:
        """Logits of features ``h`` [B, D], shape [B, C]."""
        direction = h / h.norm(dim=1, keepdim=True).clamp_min(1e-12)
        weight = self.weight / (self.weight.norm(dim=1, keepdim=True) + self.gamma)
        return self.scale * F.linear(direction, weight)


class AffineLogits(nn.Module):
    """scale * z + shift of another model's logits z: boundary adjustment and re-scaling at inference.

    Args:
        model: pixels to logits.
        scale: factor on the logits, one or one per class [C].
        shift: added to them, shape [C].
    """

    def __init__(self, model: nn.Module, scale: float | Tensor, shift: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("scale", torch.as_tensor(scale, dtype=shift.dtype, device=shift.device))
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Adjusted logits of pixels ``x`` [B, channels, height, width] in [0, 1]."""
        logits = self.model(x)
        return self.scale.to(logits.dtype) * logits + self.shift.to(logits.dtype)
