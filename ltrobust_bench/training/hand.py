"""The epoch in hand: what it has come to, so that a checkpoint in the middle of it can be gone on from exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltrobust_bench.randomness import derive_seed, seeded


@dataclass
class EpochInHand:
    """An epoch between two of its steps.

    Attributes:
        epoch: 1-based.
        order: images of the epoch as the sampler drew them, indices into the training images, int64.
        noise: draws the random starts of the attacks.
        total: sum of the losses, each times its images; stays on the device.
        step: finished steps.
        images: in those steps.
        forwards, backwards, seconds: what the steps cost.
        undone: steps that were undone because of a loss that was not finite.
    """

    epoch: int
    order: np.ndarray
    noise: torch.Generator
    total: Tensor
    step: int = 0
    images: int = 0
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    undone: int = 0

    def state(self) -> dict[str, Any]:
        """All of it, with the state of torch's global generators, for a checkpoint."""
        device = self.total.device
        plain = vars(self) | {"order": torch.from_numpy(self.order), "noise": self.noise.get_state()}
        generators = [torch.get_rng_state()]
        if device.type == "cuda":
            generators.append(torch.cuda.get_rng_state(device))
        return plain | {"generators": generators}

    @classmethod
    def of(cls, state: Mapping[str, Any], device: torch.device) -> EpochInHand:
        """What :meth:`state` kept; torch's global generators are put where they were."""
        plain = dict(state)
        first, *others = plain.pop("generators")
        torch.set_rng_state(first.cpu())
        for generator in others if device.type == "cuda" else ():
            torch.cuda.set_rng_state(generator.cpu(), device)
        noise = torch.Generator()
        noise.set_state(plain["noise"].cpu())
        return cls(**plain | {"order": plain["order"].cpu().numpy(), "noise": noise})


def begin_epoch(seed: int, epoch: int, device: torch.device, order: Any) -> EpochInHand:
    """An epoch before its first step; torch's global generators are seeded for it.

    Args:
        seed: of the run.
        epoch: 1-based.
        device: where it is computed.
        order: draws the epoch's images, from the epoch.
    """
    # Parts that draw from torch's global generator are as reproducible as the rest.
    torch.manual_seed(derive_seed(seed, "torch", epoch))
    noise = seeded(seed, "attack", epoch)
    return EpochInHand(epoch, order(epoch), noise, torch.zeros((), device=device))
