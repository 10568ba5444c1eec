"""ResNet-18 (He et al., CVPR 2016) and PreActResNet-18 (He et al., ECCV 2016) with the 3x3 stem for 32x32 images."""

from __future__ import annotations

from torch import Tensor, nn

from ltrobust_bench.models.registry import Shape, require_size


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """conv - norm - ReLU - conv - norm, plus the input (projected where the shape changes), ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(out)) + self.shortcut(x)).relu()


class PreActBlock(nn.Module):
    """norm - ReLU - conv, twice, plus the input (projected after the first activation where the shape changes)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.bn1(x).relu()
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(self.bn2(self.conv1(active)).relu()) + shortcut


class ResNet(nn.Module):
    """Four groups of two blocks of widths 64, 128, 256, 512, averaged over space.

    Args:
        channels: of the input.
        block: :class:`BasicBlock` or :class:`PreActBlock`.
    """

    features = 512

    def __init__(self, channels: int, block: type[BasicBlock] | type[PreActBlock]) -> None:
        super().__init__()
        pre_activation = block is PreActBlock
        self.conv1 = _conv(channels, 64, 3)
        self.bn1 = nn.Identity() if pre_activation else nn.BatchNorm2d(64)
        groups, inputs = [], 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            groups.append(nn.Sequential(block(inputs, width, stride), block(width, width, 1)))
            inputs = width
        self.groups = nn.ModuleList(groups)
        self.final = nn.Sequential(nn.BatchNorm2d(512), nn.ReLU()) if pre_activation else nn.Identity()
        self.stem_activation = nn.Identity() if pre_activation else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Features of images, shape [B, 512]."""
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
