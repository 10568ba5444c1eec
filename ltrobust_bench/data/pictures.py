"""Reading one picture that somebody else made: a plain file, of a format that Pillow reads itself, of bounded size."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltrobust_bench.errors import DataError, LTBenchError
from ltrobust_bench.reading import read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""What is read, whatever a name ends in. Others are not: for EPS Pillow would start another program."""
LARGEST = 80_000_000
"""Pixels of a picture, before it is scaled; Pillow warns of larger ones."""
LARGEST_FILE = 400_000_000
"""Bytes of a picture's file."""
MANY = 8_000_000
"""Pixels of a picture that is decoded alone, so that several threads do not need several times its memory."""
DEEP = ("I", "F")
"""First letter of the modes of images with more than 8 bits a channel."""
_ALONE = threading.Lock()


@contextmanager
def decoding() -> Iterator[None]:
    """Where pictures are decoded, in any thread: Pillow's warning of a huge one is an error of that one, and what it
    says of odd remarks in a file that it can read is not repeated."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[Picture, bytes]]:
    """A picture and the content of its file; decoded when it is used, within :func:`decoding`.

    Raises:
        DataError: if it is no plain file, no picture, has more than 8 bits a channel or more than ``LARGEST`` pixels.
    """
    from PIL import Image

    try:
        content = read_bytes(path, LARGEST_FILE)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            pixels = image.size[0] * image.size[1]
            if pixels > LARGEST:
                raise _too_large(path)
            if image.mode.startswith(DEEP):
                raise DataError(f"{path} has more than 8 bits a channel ({image.mode}); convert it to 8 bits.")
            with _ALONE if pixels > MANY else nullcontext():
                yield image, content
    except LTBenchError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(path) from None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of its reader
        raise _unreadable(path, str(error) or type(error).__name__) from None


@dataclass(frozen=True)
class About:
    """What is known of a picture that was read, beside its pixels.

    Attributes:
        sha256: of its file.
        size: its width and height, as it stands upright.
        see_through: whether it was partly transparent, see :func:`upright`.
    """

    sha256: str
    size: tuple[int, int]
    see_through: bool


def upright(image: Picture, mode: str = "RGB") -> tuple[Picture, bool]:
    """A picture turned as its camera says, in a mode without opacity, and whether it was partly transparent.

    Such a picture is laid on white, as most programs show it: what colours a file has where nothing is seen is chance.
    """
    from PIL import Image, ImageOps

    turned = ImageOps.exif_transpose(image)
    if turned.has_transparency_data:
        opacity = turned.convert("RGBA")
        if np.asarray(opacity)[..., 3].min() < 255:
            white = Image.new("RGBA", opacity.size, "white")
            return Image.alpha_composite(white, opacity).convert(mode), True
    return turned.convert(mode), False


def read_picture(path: str | Path, size: int) -> tuple[np.ndarray, About]:
    """A picture as RGB, uint8 [3, size, size], and what else is known of it.

    It is made :func:`upright`, its shorter side is scaled to ``size`` (antialiased), and the middle is cut out. Called
    within :func:`decoding`.

    Raises:
        DataError: as :func:`opened`.
    """
    from PIL import Image, ImageOps

    with opened(path) as (image, content):
        whole, see_through = upright(image)
        square = ImageOps.fit(whole, (size, size), method=Image.Resampling.BILINEAR)
    about = About(hashlib.sha256(content).hexdigest(), whole.size, see_through)
    return np.asarray(square).transpose(2, 0, 1), about


def _too_large(path: str | Path) -> DataError:
    return DataError(f"{path} has more than {LARGEST // 1_000_000} million pixels; scale it down or remove it.")


def _unreadable(path: str | Path, reason: str) -> DataError:
    # Pillow names what it was given, which is the content in memory.
    what = "it is no picture" if reason.startswith("cannot identify") else reason.splitlines()[0]
    return DataError(f"{path} cannot be read as an image ({what}); repair it or remove it.")
