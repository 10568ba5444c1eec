"""Augmentation policies before crop and flip, by torchvision, each image by its own draw."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ltrobust_bench.protocol.spec import Augment


def augmentation(name: Augment) -> Callable[[Tensor, int], Tensor] | None:
    """A policy as a function (uint8 images [B, channels, height, width], seed) -> images of the same shape and device.

    ``randaugment``: 2 of 14 operations at magnitude 8 of 31 levels (Cubuk et al. 2020; AT-BSL-RA). ``autoaugment``: the
    learned CIFAR-10 policy (Cubuk et al. 2019; AT-BSL-AuA). Nearest interpolation, black filling. None for ``none``.
    """
    if name == "none":
        return None
    from torchvision.transforms import InterpolationMode, v2

    nearest = InterpolationMode.NEAREST
    if name == "randaugment":
        transform = v2.RandAugment(num_ops=2, magnitude=8, num_magnitude_bins=31, interpolation=nearest)
    else:
        transform = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, interpolation=nearest)

    def apply(images: Tensor, seed: int) -> Tensor:
        # The policies draw from the global generator of the CPU; it is put back, so that nothing else notices.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return torch.stack([transform(image) for image in images])

    return apply
