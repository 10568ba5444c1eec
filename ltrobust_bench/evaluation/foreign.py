"""What is looked at before a model that is not ours is attacked: does it take [0, 1] pixels and return logits?"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ltrobust_bench.compute.memory import out_of_memory
from ltrobust_bench.errors import CheckFailed

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "CIFAR-10's mean and std": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-100's mean and std": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean 0.5 and std 0.5": ((0.5,), (0.5,)),
    "pixels from 0 to 255": ((0.0,), (1 / 255,)),
}
"""What models are commonly trained with: (x - mean) / std of pixels in [0, 1]."""
CLEAR, ERRORS = 0.1, 3.0
"""By how much the accuracy on normalised images must be higher, and by how many standard errors of the paired
difference: no model that takes [0, 1] gains so much."""


def checked_logits(model: nn.Module, x: Tensor, classes: int) -> Tensor:
    """The model's logits for ``x`` [B, channels, height, width], shape [B, C].

    Raises:
        CheckFailed: saying what came instead.
    """
    try:
        with torch.no_grad():
            logits = model(x)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if out_of_memory(error):
            raise
        raise CheckFailed(
            f"the model failed on images of shape {tuple(x.shape)}: {' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(logits, Tensor) or logits.shape != (len(x), classes):
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise CheckFailed(
            f"the model returned {seen} for {len(x)} images; logits of shape ({len(x)}, {classes}) are needed."
        )
    if not logits.is_floating_point():
        raise CheckFailed(f"the model returned numbers of type {logits.dtype}; floating-point logits are needed.")
    if not torch.isfinite(logits).all():
        raise CheckFailed("the model returned NaN or infinite logits for images in [0, 1].")
    return logits


def check_takes_pixels(model: nn.Module, x: Tensor, y: Tensor, classes: int) -> None:
    """See that a model takes pixels in [0, 1] as they are.

    Args:
        model: pixels to logits, in eval mode.
        x, y: some test images [B, channels, height, width] and their labels [B].
        classes: C.

    Raises:
        CheckFailed: if its output is none, or it is far better on normalised images.
    """

    def correct(images: Tensor) -> Tensor:
        return checked_logits(model, images, classes).argmax(dim=1) == y

    plain, best, most = correct(x), "", 0.0
    for name, (mean, std) in NORMALISATIONS.items():
        if len(mean) not in (1, x.shape[1]):
            continue
        shift, scale = (torch.tensor(v, dtype=x.dtype, device=x.device).view(1, -1, 1, 1) for v in (mean, std))
        try:
            normalised = correct((x - shift) / scale)
        except CheckFailed:  # a model need not take what it was not asked to take
            continue
        won, lost = int((normalised & ~plain).sum()), int((plain & ~normalised).sum())
        share = float(normalised.float().mean())
        if won - lost > max(CLEAR * len(x), ERRORS * math.sqrt(won + lost)) and share > most:
            best, most = name, share
    if best:
        raise CheckFailed(
            f"the model needs normalised input: {float(plain.float().mean()):.1%} of {len(x)} images are right on "
            f"pixels in [0, 1], {most:.1%} with {best}; put the normalisation inside the model."
        )
