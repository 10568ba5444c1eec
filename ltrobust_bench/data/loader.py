"""Images as uint8 on the device, augmented there in batches.

Randomness is a function of (seed, stream, epoch): nothing has to be saved to resume, and an epoch is the same
whichever way it was reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Sampler


def derive_seed(seed: int, stream: str, epoch: int = 0) -> int:
    """A 63-bit seed for one use of randomness in one epoch."""
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seeded(seed: int, stream: str, epoch: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device``, seeded for one use in one epoch."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, stream, epoch))


def to_unit(images: Tensor) -> Tensor:
    """uint8 images to float32 in [0, 1]."""
    return images.to(torch.float32).div_(255.0)


@dataclass
class DeviceData:
    """A labelled set of images resident on one device.

    Attributes:
        images: uint8, shape [N, channels, height, width].
        labels: int64, shape [N].
    """

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray, device: torch.device) -> DeviceData:
        """Copy arrays to ``device``."""
        return cls(torch.from_numpy(np.ascontiguousarray(images)).to(device), torch.from_numpy(labels).to(device))

    def __len__(self) -> int:
        return len(self.labels)


def crop_and_flip(x: Tensor, generator: torch.Generator, *, padding: int, flip: bool) -> Tensor:
    """Random crops after zero padding, and horizontal flips with probability 1/2, each image on its own.

    Args:
        x: shape [B, channels, height, width].
        generator: on the CPU; its draws are the same for every device.
        padding: pixels of zero padding on each side.
        flip: whether to flip.
    """
    batch, channels, height, width = x.shape
    rows = torch.arange(height).expand(batch, height)
    columns = torch.arange(width).expand(batch, width)
    if padding:
        offset = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=generator)
        rows, columns = rows + offset[0], columns + offset[1]
    if flip:
        mirrored = torch.rand(batch, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if not padding and not flip:
        return x
    x = F.pad(x, (padding,) * 4)
    index = (rows[:, :, None] * x.shape[3] + columns[:, None, :]).reshape(batch, 1, -1)
    index = index.to(x.device, non_blocking=True).expand(-1, channels, -1)
    return x.flatten(2).gather(2, index).view(batch, channels, height, width)


class TrainLoader:
    """Augmented batches of one epoch after another, in the order a sampler gives.

    Args:
        data: the training images.
        sampler: draws the order.
        batch_size: images per batch.
        steps: batches per epoch.
        seed: training seed.
        padding, flip: see :func:`crop_and_flip`.
    """

    def __init__(
        self,
        data: DeviceData,
        sampler: Sampler,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        padding: int,
        flip: bool,
    ) -> None:
        self.data, self.sampler, self.batch_size, self.steps = data, sampler, batch_size, steps
        self.seed, self.padding, self.flip = seed, padding, flip
        self._labels = data.labels.cpu().numpy()

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (images float32 in [0, 1], labels int64) of the 1-based ``epoch``."""
        generator = np.random.default_rng(derive_seed(self.seed, "order", epoch))
        order = self.sampler(self._labels, self.steps * self.batch_size, epoch, generator)
        augment = seeded(self.seed, "augment", epoch)
        index = torch.from_numpy(order).to(self.data.images.device)
        for step in range(self.steps):
            chosen = index[step * self.batch_size : (step + 1) * self.batch_size]
            images = crop_and_flip(self.data.images[chosen], augment, padding=self.padding, flip=self.flip)
            yield to_unit(images), self.data.labels[chosen]
