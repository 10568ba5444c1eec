"""Mixtures of images, for training on targets of two labels (:class:`ltrobust_bench.api.Mixed`). What is drawn is drawn
on the processor from torch's global generator, which a run seeds."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Box(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of an image, the latter not included."""

    top: int
    bottom: int
    left: int
    right: int


def chance(probability: float) -> bool:
    """Whether something happens this time."""
    return torch.rand(()).item() < probability


def beta_draw(alpha: float) -> float:
    """A number of the distribution Beta(alpha, alpha), in [0, 1]; alpha above 0."""
    return torch.distributions.Beta(alpha, alpha).sample().item()


def permutation(like: Tensor) -> Tensor:
    """A random order of the images of ``like`` [B, ...], int64 [B], on its device; no waiting for a copy."""
    return torch.randperm(len(like), pin_memory=like.is_cuda).to(like.device, non_blocking=True)


def draw_box(height: int, width: int, share: float) -> Box:
    """CutMix's box (Yun et al., ICCV 2019): sides sqrt(1 - share) of the image's, rounded down, its centre anywhere,
    what lies outside of the image cut off."""
    row, column = (int(torch.randint(side, ())) for side in (height, width))
    return box_around(row, column, height, width, share)


def box_around(row: int, column: int, height: int, width: int, share: float) -> Box:
    """:func:`draw_box` with a given centre."""
    (top, bottom), (left, right) = (
        (max(0, centre - half), min(side, centre + half))
        for centre, side in ((row, height), (column, width))
        for half in [int(side * math.sqrt(1 - share)) // 2]
    )
    return Box(top, bottom, left, right)


def paste(x: Tensor, patches: Tensor, box: Box) -> tuple[Tensor, float]:
    """Images with the box of others in them, [B, channels, height, width], and the share of ``x`` in them by area."""
    top, bottom, left, right = box
    mixed = x.clone()
    mixed[..., top:bottom, left:right] = patches[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (x.shape[-2] * x.shape[-1])
