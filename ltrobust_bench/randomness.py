"""Randomness is a function of (seed, stream, epoch): nothing has to be saved to resume, and an epoch is the same
whichever way it was reached.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, stream: str, epoch: int = 0) -> int:
    """A 63-bit seed for one use of randomness in one epoch."""
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seeded(seed: int, stream: str, epoch: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device``, seeded for one use in one epoch."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, stream, epoch))
