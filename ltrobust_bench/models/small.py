"""A small convolutional network for 8x8 and 28x28 images."""

from __future__ import annotations

from torch import Tensor, nn

from ltrobust_bench.models.registry import Shape, require_size


class SmallNet(nn.Module):
    """Three 3x3 convolutions with batch norm and ReLU, the second of stride 2, averaged over space; images above
    16 pixels are max-pooled by 2 after the first.

    Args:
        channels: of the input.
    """

    features = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels, 16, 32, self.features]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=s, padding=1, bias=False)
            for i, o, s in zip(widths, widths[1:], (1, 2, 1), strict=False)
        )
        self.activation = nn.ReLU()
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in widths[1:])
        self.pool = nn.MaxPool2d(2)
        for parameter in self.convolutions.parameters():
            nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Features of images, shape [B, 64]."""
        large = x.shape[-1] > 16
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = self.activation(norm(convolution(x)))
            if large and index == 0:
                x = self.pool(x)
        return x.mean(dim=(2, 3))


def small(shape: Shape) -> SmallNet:
    """The small network."""
    require_size("small", shape, 2)
    return SmallNet(shape[0])
