"""ResNet-18 (He et al., CVPR 2016) and PreActResNet-18 (He et al., ECCV 2016) with the 3x3 stem for 32x32 images, and a
ResNet-8 that a CPU trains in minutes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ltrobust_bench.models.registry import Shape, require_size


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """conv - norm - ReLU - conv - norm, plus the input (projected where the shape changes), ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.conv1, self.bn1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(out)) + self.shortcut(x))


class PreActBlock(nn.Module):
    """norm - ReLU - conv, twice, plus the input (projected after the first activation where the shape changes)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(self.activation(self.bn2(self.conv1(active)))) + shortcut


class ResNet(nn.Module):
    """Groups of blocks, each group after the first at half the size of the one before, averaged over space.

    Args:
        channels: of the input.
        block: :class:`BasicBlock` or :class:`PreActBlock`.
        widths: channels of each group; the last are the features.
        blocks: in a group.
        stride: of the stem, a 3x3 convolution.
    """

    def __init__(
        self,
        channels: int,
        block: type[BasicBlock] | type[PreActBlock],
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: int = 2,
        stride: int = 1,
    ) -> None:
        super().__init__()
        pre_activation = block is PreActBlock
        self.features = widths[-1]
        self.conv1 = _conv(channels, widths[0], 3, stride)
        self.bn1 = nn.Identity() if pre_activation else nn.BatchNorm2d(widths[0])
        groups, inputs = [], widths[0]
        for number, width in enumerate(widths):
            first = block(inputs, width, 2 if number else 1)
            groups.append(nn.Sequential(first, *(block(width, width, 1) for _ in range(blocks - 1))))
            inputs = width
        self.groups = nn.ModuleList(groups)
        self.final = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU()) if pre_activation else nn.Identity()
        self.stem_activation = nn.Identity() if pre_activation else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Features of images, shape [B, features]."""
        x = self.stem_activation(self.bn1(self.conv1(x)))
        for group in self.groups:
            x = group(x)
        return self.final(x).mean(dim=(2, 3))


SMALLEST = 8
"""Pixels of the shorter side that leave one for the last group."""


def resnet18(shape: Shape) -> ResNet:
    """ResNet-18, CIFAR stem."""
    require_size("resnet18", shape, SMALLEST)
    return ResNet(shape[0], BasicBlock)


def preact_resnet18(shape: Shape) -> ResNet:
    """PreActResNet-18, CIFAR stem."""
    require_size("preact-resnet18", shape, SMALLEST)
    return ResNet(shape[0], PreActBlock)


def resnet8(shape: Shape) -> ResNet:
    """Three groups of one block, widths 24, 48, 96, after a stem of stride 2."""
    require_size("resnet8", shape, SMALLEST)
    return ResNet(shape[0], BasicBlock, (24, 48, 96), blocks=1, stride=2)
