"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray, CVPR 2016): a quarter of the products.

Each 4x4 tile of the output is A^T [ (G g G^T) * (B^T d B) ] A, d being the 6x6 tile of the input around it. The
products over channels are 36 matrix products. In float32 the rounding error is several times that of a direct
convolution.
Weights are constants here: only the gradient with respect to the images is computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TILE, POINTS = 4, 6
SMALLEST = 64
"""Input channels from which the products outweigh the transforms."""
TILES_AT_ONCE = 128
"""So many tiles of all channels stay in a core's cache on their way through the transforms."""
_B: list[list[float]] = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_G: list[list[float]] = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_A: list[list[float]] = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def fits(convolution: nn.Conv2d) -> bool:
    """Whether the method applies to a convolution, and pays."""
    return (
        convolution.kernel_size == (3, 3)
        and convolution.stride == convolution.dilation == (1, 1)
        and convolution.padding in ((1, 1), "same")
        and convolution.padding_mode == "zeros"
        and convolution.groups == 1
        and min(convolution.in_channels, convolution.out_channels) >= SMALLEST
    )


def convolve(x: Tensor, filters: Tensor, bias: Tensor, inward: Tensor, outward: Tensor) -> Tensor:
    """3x3 convolution, stride 1, padding 1.

    Args:
        x: shape [B, C, height, width].
        filters: transformed weights, shape [36, C, K].
        bias: shape [K].
        inward, outward: the transforms B^T and A^T, shapes [6, 6] and [4, 6].

    Returns:
        Shape [B, K, height, width], channels innermost in memory.
    """
    (batch, channels, height, width), kernels = x.shape, filters.shape[2]
    down, across = -(-height // TILE), -(-width // TILE)
    images = max(1, min(batch, TILES_AT_ONCE // (down * across)))
    pixels = x.permute(0, 2, 3, 1)
    padded = x.new_zeros(images, down * TILE + 2, across * TILE + 2, channels)
    tiles = padded.unfold(1, POINTS, TILE).unfold(2, POINTS, TILE).permute(4, 5, 0, 1, 2, 3)
    out = x.new_empty(batch, down, TILE, across, TILE, kernels)
    # Two buffers that every part passes through by turns; they stay in the cache.
    one = x.new_empty(POINTS**2 * images * down * across * max(channels, kernels))
    two = torch.empty_like(one)
    for first in range(0, batch, images):
        here = min(images, batch - first)
        count = here * down * across
        padded[:here, 1 : 1 + height, 1 : 1 + width] = pixels[first : first + here]
        given = one[: POINTS**2 * count * channels]
        given.view(POINTS, POINTS, here, down, across, channels).copy_(tiles[:, :, :here])
        seen = _both_axes(inward, given, two, one).view(POINTS**2, count, channels)
        products = two[: POINTS**2 * count * kernels]
        torch.bmm(seen, filters, out=products.view(POINTS**2, count, kernels))
        found = _both_axes(outward, products, one, two)
        placed = found.view(TILE, TILE, here, down, across, kernels).permute(2, 3, 0, 4, 1, 5)
        torch.add(placed, bias, out=out[first : first + here])
    image = out.view(batch, down * TILE, across * TILE, kernels)[:, :height, :width]
    return image.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _both_axes(matrix: Tensor, tiles: Tensor, between: Tensor, into: Tensor) -> Tensor:
    """``matrix`` [r, 6] on rows and columns of ``tiles``, 6 x 6 x anything; ``into`` may be where the tiles are."""
    size, rest = len(matrix), tiles.numel() // POINTS**2
    rows = between[: size * POINTS * rest]
    torch.mm(matrix, tiles.view(POINTS, -1), out=rows.view(size, -1))
    found = into[: size * size * rest].view(size, size, rest)
    return torch.bmm(matrix.expand(size, -1, -1), rows.view(size, POINTS, rest), out=found)


class _Convolve(torch.autograd.Function):
    """The gradient with respect to the images is the convolution with the turned and transposed weights."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, filters: Tensor, bias: Tensor, turned: Tensor, inward: Tensor, outward: Tensor
    ) -> Tensor:
        ctx.save_for_backward(turned, turned.new_zeros(turned.shape[2]), inward, outward)
        return convolve(x, filters, bias, inward, outward)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return convolve(gradient, *ctx.saved_tensors), None, None, None, None, None


class WinogradConv(nn.Module):
    """A convolution that :func:`fits`, with constant weights, which :meth:`load` gives it.

    Args:
        convolution: whose shape, type and device to take.
    """

    filters: Tensor
    turned: Tensor
    bias: Tensor
    inward: Tensor
    outward: Tensor
    spread: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight, (kernels, channels) = convolution.weight, convolution.weight.shape[:2]
        self.register_buffer("filters", weight.new_empty(POINTS**2, channels, kernels))
        self.register_buffer("turned", weight.new_empty(POINTS**2, kernels, channels))
        self.register_buffer("bias", weight.new_zeros(kernels))
        spread = torch.tensor(_G, dtype=torch.float64)
        for name, matrix in (
            ("inward", torch.tensor(_B)),
            ("outward", torch.tensor(_A)),
            ("spread", torch.kron(spread, spread)),
        ):
            self.register_buffer(name, matrix.to(weight))

    @torch.no_grad()
    def load(self, weight: Tensor, bias: Tensor) -> None:
        """Take weights [K, C, 3, 3] and bias [K]."""
        kernels, channels = weight.shape[:2]
        for place, taps in ((self.filters, weight.transpose(0, 1)), (self.turned, weight.flip(2, 3))):
            rows = taps.permute(2, 3, 0, 1).reshape(9, -1)
            torch.mm(self.spread, rows, out=place.view(POINTS**2, channels * kernels))
        self.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape [B, C, height, width] to [B, K, height, width]."""
        found: Tensor = _Convolve.apply(x, self.filters, self.bias, self.turned, self.inward, self.outward)
        return found
