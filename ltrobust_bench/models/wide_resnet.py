"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016), without dropout."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ltrobust_bench.models.registry import Shape, require_size
from ltrobust_bench.models.resnet import PreActBlock


class WideResNet(nn.Module):
    """Three groups of (depth - 4) / 6 blocks of widths 16k, 32k, 64k, averaged over space.

    Args:
        channels: of the input.
        depth: 28 or 34.
        widen: k.
    """

    def __init__(self, channels: int, depth: int, widen: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.features = 64 * widen
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        layers, inputs = [], 16
        for width, stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            for index in range(blocks):
                layers.append(PreActBlock(inputs, width, stride if index == 0 else 1))
                inputs = width
        self.blocks = nn.Sequential(*layers)
        self.bn1 = nn.BatchNorm2d(self.features)
        self.activation = nn.ReLU()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2.0 / fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """Features of images, shape [B, 64k]."""
        return self.activation(self.bn1(self.blocks(self.conv1(x)))).mean(dim=(2, 3))


SMALLEST = 4
"""Pixels of the shorter side that leave one for the last group."""


def wrn_28_10(shape: Shape) -> WideResNet:
    """WRN-28-10."""
    require_size("wrn-28-10", shape, SMALLEST)
    return WideResNet(shape[0], 28, 10)


def wrn_34_10(shape: Shape) -> WideResNet:
    """WRN-34-10."""
    require_size("wrn-34-10", shape, SMALLEST)
    return WideResNet(shape[0], 34, 10)
