"""Images as uint8 on the device, augmented there in batches.

Randomness is a function of (seed, stream, epoch): nothing has to be saved to resume, and an epoch is the same
whichever way it was reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Sampler
from ltrobust_bench.data.augment import augmentation
from ltrobust_bench.data.lists import Files
from ltrobust_bench.data.sources import Source
from ltrobust_bench.errors import UsageError
from ltrobust_bench.protocol.spec import Augment
from ltrobust_bench.randomness import derive_seed, seeded


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

    def in_turn(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Images of batch after batch, uint8 on the device.

        Args:
            indices: of each batch, int64 [B] on the device.
        """
        return (self.images[index] for index in indices)

    def at(self, index: Tensor) -> Tensor:
        """Some images, uint8 on the device."""
        return self.images[index]


@dataclass
class FileData:
    """A labelled set of images that stay in their files: batch after batch goes to the device, the next one is read
    meanwhile.

    Attributes:
        files: the images.
        labels: int64 [N], on the device.
    """

    files: Files
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def in_turn(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """As :meth:`DeviceData.in_turn`.

        Raises:
            DataError: for a file that cannot be read.
        """
        with ThreadPoolExecutor(1) as reader:
            ahead: Future[np.ndarray] | None = None
            for index in indices:
                following = reader.submit(self.files.__getitem__, index.cpu().numpy())
                if ahead is not None:
                    yield torch.from_numpy(ahead.result()).to(self.labels.device)
                ahead = following
            if ahead is not None:
                yield torch.from_numpy(ahead.result()).to(self.labels.device)

    def at(self, index: Tensor) -> Tensor:
        """As :meth:`DeviceData.at`."""
        return torch.from_numpy(self.files[index.cpu().numpy()]).to(self.labels.device)


TrainData = DeviceData | FileData


def training_set(source: Source, chosen: np.ndarray, device: torch.device) -> TrainData:
    """The training images with these indices of the full training set."""
    labels = source.train_labels[chosen]
    if source.streams:
        files: Files = source.train_images  # type: ignore[assignment]
        return FileData(files.of(chosen), torch.from_numpy(labels).to(device))
    return DeviceData.of(source.train_pixels(chosen), labels, device)


def crop_and_flip(x: Tensor, offsets: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Crops after zero padding, and horizontal flips, each image by its own draw.

    Args:
        x: shape [B, channels, height, width].
        offsets: rows and columns of the crop's corner in the padded image, int64, shape [2, B].
        mirrored: which images to flip, bool, shape [B].
        padding: pixels of zero padding on each side.
    """
    batch, channels, height, width = x.shape
    rows = torch.arange(height, device=x.device) + offsets[0, :, None]
    columns = torch.arange(width, device=x.device) + offsets[1, :, None]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    x = F.pad(x, (padding,) * 4)
    index = (rows[:, :, None] * x.shape[3] + columns[:, None, :]).view(batch, 1, -1).expand(-1, channels, -1)
    return x.flatten(2).gather(2, index).view(batch, channels, height, width)


STREAMS = ("", "partner/")
"""Of randomness, for images and for their partners."""


class Batch(NamedTuple):
    """Images float32 in [0, 1], labels int64, and images and labels that were drawn beside them, if any were."""

    x: Tensor
    y: Tensor
    partners: tuple[Tensor, Tensor] | None = None


def extra_of_each(batch_size: int, share: float) -> int:
    """Extra images of a whole batch: the share, rounded, and at least one of either kind."""
    return min(max(1, round(share * batch_size)), batch_size - 1)


def mixed(
    own: np.ndarray, first: int, extra: int, batch_size: int, beside: int, generator: np.random.Generator
) -> np.ndarray:
    """An epoch's order with extra images in each batch, after its own; a last batch that is not whole has the same
    share of them, rounded up. None comes again before all have come.

    Args:
        own: indices of the training images, in order.
        first: index of the first extra image.
        extra: how many there are.
        batch_size, beside: images of a batch, and how many of them are extra ones.
        generator: draws the extra ones.

    Returns:
        Indices, int64; batch after batch.
    """
    each = batch_size - beside
    whole, rest = divmod(len(own), each)
    needed = whole * beside + -(-rest * beside // each)
    rounds = [generator.permutation(extra) for _ in range(-(-needed // extra))]
    others = first + np.concatenate([*rounds, np.empty(0, dtype=np.int64)])[:needed]
    batches = np.hstack([own[: whole * each].reshape(whole, each), others[: whole * beside].reshape(whole, beside)])
    return np.concatenate([batches.ravel(), own[whole * each :], others[whole * beside :]])


class TrainLoader:
    """Augmented batches of one epoch after another, in the order a sampler gives.

    Args:
        data: the training images.
        sampler: draws the order.
        batch_size: images per batch.
        steps: batches per epoch.
        seed: training seed.
        padding: zero padding of random crops, pixels.
        flip: whether to flip half of the images.
        augment: policy before crop and flip.
        extra: training images beyond these, which have their indices after them.
        share: of each batch that they are.
    """

    def __init__(
        self,
        data: TrainData,
        sampler: Sampler,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        padding: int,
        flip: bool,
        augment: Augment = "none",
        extra: DeviceData | None = None,
        share: float = 0.0,
    ) -> None:
        self._labels = data.labels.cpu().numpy()
        self.extra, self.share = 0 if extra is None else len(extra), share
        if extra is not None:
            assert isinstance(data, DeviceData), "a plan has extra images only where memory holds the data set"
            data = DeviceData(
                *(torch.cat(pair) for pair in zip(vars(data).values(), vars(extra).values(), strict=True))
            )
        self.data, self.sampler, self.batch_size, self.steps = data, sampler, batch_size, steps
        self.seed, self.padding, self.flip, self.augment = seed, padding, flip, augmentation(augment)

    def order(self, epoch: int) -> np.ndarray:
        """The sampler's draws for the 1-based ``epoch``: indices into the training images, int64, among them in each
        batch those of extra images, and in a second row those of their partners, if it draws pairs. A sampler may
        remember what it has drawn, so an epoch's order is asked for once.

        Raises:
            UsageError: if pairs are drawn beside extra images.
        """
        generator = np.random.default_rng(derive_seed(self.seed, "order", epoch))
        if not self.extra:
            return self.sampler(self._labels, self.steps * self.batch_size, epoch, generator)
        beside = extra_of_each(self.batch_size, self.share)
        draws = self.steps * (self.batch_size - beside)
        own = self.sampler(self._labels, draws, epoch, generator)
        if own.ndim != 1:
            raise UsageError("a sampler that draws pairs, as cmo's does, draws no extra images; leave one of them out.")
        own = own[:draws]
        others = np.random.default_rng(derive_seed(self.seed, "extra", epoch))
        return mixed(own, len(self._labels), self.extra, self.batch_size, beside, others)

    def epoch(self, epoch: int, order: np.ndarray | None = None, first: int = 0) -> Iterator[Batch]:
        """Batches of the 1-based ``epoch``.

        Args:
            order: what :meth:`order` gave for it; None: ask.
            first: so many steps are left out.
        """
        if order is None:
            order = self.order(epoch)
        if order.ndim == 1:
            yield from (Batch(x, y) for x, y in self._augmented(order, epoch, first))
            return
        own, partners = (self._augmented(row, epoch, first, stream) for row, stream in zip(order, STREAMS, strict=True))
        yield from (Batch(*one, beside) for one, beside in zip(own, partners, strict=True))

    def _augmented(
        self, order: np.ndarray, epoch: int, first: int, stream: str = ""
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Images of one row of an order, in batches, and their labels."""
        draws = seeded(self.seed, f"{stream}augment", epoch)
        # An epoch's draws go to the device at once: no copy, and no waiting for one, between steps.
        offsets = torch.randint(0, 2 * self.padding + 1, (2, len(order)), generator=draws)
        mirrored = (torch.rand(len(order), generator=draws) < 0.5) & self.flip
        device = self.data.labels.device
        index, offsets, mirrored = torch.from_numpy(order).to(device), offsets.to(device), mirrored.to(device)
        parts = [slice(step * self.batch_size, (step + 1) * self.batch_size) for step in range(first, self.steps)]
        batches = self.data.in_turn(index[part] for part in parts)
        for step, (part, images) in enumerate(zip(parts, batches, strict=True), first):
            if self.augment is not None:
                images = self.augment(images, derive_seed(self.seed, f"{stream}policy/{step}", epoch))
            images = crop_and_flip(images, offsets[:, part], mirrored[part], self.padding)
            yield to_unit(images), self.data.labels[index[part]]
