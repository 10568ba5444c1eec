"""Randomness is a function of (seed, stream, epoch): nothing has to be saved to resume, and an epoch is the same
whichever way it was reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def derive_seed(seed: int, stream: str, epoch: int = 0) -> int:
    """A 63-bit seed for one use of randomness in one epoch."""
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seeded(seed: int, stream: str, epoch: int = 0) -> torch.Generator:
    """A generator, seeded for one use in one epoch. It is the processor's wherever a run is computed: a GPU's would
    draw other numbers, and a run's are its seed's alone."""
    return torch.Generator().manual_seed(derive_seed(seed, stream, epoch))


def uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """U[0, 1) with type and device of ``like``, see :func:`_drawn`."""
    return _drawn(torch.rand, shape, like, generator)


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """N(0, 1) with type and device of ``like``, see :func:`_drawn`."""
    return _drawn(torch.randn, shape, like, generator)


def _drawn(
    draw: Callable[..., Tensor], shape: Sequence[int], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Drawn where the generator is (None: where ``like`` is, from torch's global one). On its way from the processor to
    a GPU nobody waits: the copy is from pinned memory, behind the work that the GPU has in hand."""
    if generator is None or generator.device.type == like.device.type:
        return draw(shape, dtype=like.dtype, device=like.device, generator=generator)
    drawn = draw(shape, dtype=like.dtype, generator=generator, pin_memory=like.is_cuda)
    return drawn.to(like.device, non_blocking=True)
