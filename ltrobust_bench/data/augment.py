"""Augmentation policies before crop and flip, by torchvision, each image by its own draw."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust_bench.protocol.spec import Augment

Operation = tuple[str, float]
"""Name and magnitude, as torchvision calls them."""


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
        policy = v2.RandAugment(num_ops=2, magnitude=8, num_magnitude_bins=31, interpolation=nearest)
    else:
        policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, interpolation=nearest)

    def operate(images: Tensor, operation: Operation) -> Tensor:
        fill: Any = policy._fill
        return policy._apply_image_or_video_transform(images, *operation, policy.interpolation, fill)

    def apply(images: Tensor, seed: int) -> Tensor:
        return in_groups(images, draw(policy, len(images), images.shape[1:], seed), operate)

    return apply


def draw(policy: nn.Module, count: int, shape: torch.Size, seed: int) -> list[list[Operation]]:
    """What a policy of torchvision draws for each of ``count`` images, one after the other.

    Args:
        policy: ``v2.RandAugment`` or ``v2.AutoAugment``.
        shape: of one image; what it shows plays no part in the draws.
        seed: of all of them.
    """
    drawer: Any = copy(policy)
    drawn: list[list[Operation]] = []

    def note(image: Tensor, name: str, magnitude: float, *_: object, **__: object) -> Tensor:
        drawn[-1].append((name, magnitude))
        return image

    drawer._apply_image_or_video_transform = note
    image = torch.zeros(shape, dtype=torch.uint8)
    # The policies draw from the global generator of the CPU; it is put back, so that nothing else notices.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for _ in range(count):
            drawn.append([])
            drawer(image)
    return drawn


def in_groups(images: Tensor, drawn: list[list[Operation]], apply: Callable[[Tensor, Operation], Tensor]) -> Tensor:
    """Every image after its operations; images whose next operation is the same pass it together.

    Args:
        images: uint8, shape [B, channels, height, width].
        drawn: the operations of each image.
        apply: an operation on some of the images.
    """
    images = images.clone()
    for turn in range(max(map(len, drawn), default=0)):
        groups: dict[Operation, list[int]] = {}
        for place, operations in enumerate(drawn):
            if turn < len(operations):
                groups.setdefault(operations[turn], []).append(place)
        # All groups' places go to the device at once.
        places = torch.tensor([place for group in groups.values() for place in group]).to(images.device)
        for operation, of_group in zip(groups, places.split([len(g) for g in groups.values()]), strict=True):
            images[of_group] = apply(images[of_group], operation)
    return images
