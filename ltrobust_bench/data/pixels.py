"""From what a person has, a file, a picture, an array, to the pixels that a network takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrobust_bench.data.pictures import decoding, opened, upright
from ltrobust_bench.errors import DataError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SCALING = "the shorter side is scaled to the network's size (bilinear, antialiased), and the middle is cut out"
COLOURS = (1, 3, 4)
"""Channels of a picture: grey, RGB, RGB and opacity."""


def pixels_of(image: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """One image or a batch, as a network takes it.

    A picture (path, PIL image, or uint8 [height, width], [height, width, 3] or [3, height, width]) is scaled as folders
    of images are; float arrays must be pixels as the network takes them.

    Args:
        image: a path, a PIL image, an array or tensor; a batch has one dimension more.
        shape: of one image: channels, height, width.

    Returns:
        float32 [B, channels, height, width] in [0, 1]; B is 1 for a single image.

    Raises:
        DataError: for a file that is no picture.
        UsageError: for an array of another shape, type or range: pixels from 0 to 255, normalised ones.
    """
    from PIL import Image

    if isinstance(image, (str, Path)):
        return _unit([_read(Path(image), shape)])
    if isinstance(image, Image.Image):
        return _unit([_scaled(image, shape)])
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if array.dtype == np.uint8:
        if array.ndim == 4:
            return _unit([_scaled(_picture(one), shape) for one in array])
        return _unit([_scaled(_picture(array), shape)])
    if not np.issubdtype(array.dtype, np.floating):
        raise UsageError(f"{array.dtype} is no type of pixels: give uint8 from 0 to 255, or floats from 0 to 1.")
    batch = array[None] if array.ndim == 3 else array
    if batch.ndim != 4 or batch.shape[1:] != tuple(shape):
        raise UsageError(
            f"an array of shape {array.shape} was given, and the network takes {tuple(shape)}: give the picture itself "
            f"(a path, a PIL image, or uint8 [height, width, 3]), which is scaled."
        )
    _check_range(batch)
    return np.ascontiguousarray(batch, dtype=np.float32)


def _check_range(batch: np.ndarray) -> None:
    low, high = float(batch.min()), float(batch.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UsageError("the array holds NaN or infinite values; give pixels in [0, 1].")
    if low < 0:
        raise UsageError(
            f"values from {low:.3g} to {high:.3g} look normalised: give pixels in [0, 1]; what the network needs is "
            f"inside it."
        )
    if high > 1:
        raise UsageError(f"values up to {high:.4g} look like 0 to 255: divide by 255, or give them as uint8.")


def _picture(array: np.ndarray) -> Picture:
    """A picture from uint8 [height, width], [height, width, channels] or [channels, height, width]."""
    from PIL import Image

    if array.ndim == 3 and array.shape[-1] not in COLOURS and array.shape[0] in COLOURS:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not array.size or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in COLOURS):
        raise UsageError(f"uint8 of shape {array.shape} is no picture: give [height, width] or [height, width, 3].")
    return Image.fromarray(np.ascontiguousarray(array))


def _read(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the pictures in it.")
    if not path.is_file():
        raise DataError(f"there is no image {path}.")
    with decoding(), opened(path) as (image, _):
        return _scaled(image, shape)


def _scaled(image: Picture, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 [channels, height, width], as folders of images are read."""
    from PIL import Image, ImageOps

    channels, height, width = shape
    if image.mode.startswith(("I", "F")):
        raise UsageError(f"the picture has more than 8 bits a channel ({image.mode}); convert it to 8 bits.")
    whole, _ = upright(image, "L" if channels == 1 else "RGB")
    square = np.asarray(ImageOps.fit(whole, (width, height), method=Image.Resampling.BILINEAR))
    return square[None] if channels == 1 else square.transpose(2, 0, 1)


def _unit(images: list[np.ndarray]) -> np.ndarray:
    return np.stack(images).astype(np.float32) / np.float32(255)
